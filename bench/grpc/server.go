// The gRPC server behind every proxy: it answers each message with itself, unary and streaming, in any service.
//
//	server HOST:PORT
//
// Messages are passed on as the bytes that came, so nothing has to be generated from echo.proto.
package main

import (
	"errors"
	"io"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
)

// raw passes messages through; it is called what clients call protobuf.
type raw struct{}

func (raw) Marshal(v interface{}) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Name() string                          { return "proto" }
func (raw) Unmarshal(data []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// echo serves every method alike: a unary call is a stream of one message.
func echo(_ interface{}, stream grpc.ServerStream) error {
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(echo))
	log.Fatal(server.Serve(listener))
}
