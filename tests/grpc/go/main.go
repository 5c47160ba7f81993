// Calls with grpc-go's client: grpc-client HOST PORT [thousand | beside]. One line of JSON out, as Client.java has it.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	orders   = "/orders.v1.Orders/"
	admin    = "/orders.v1.Admin/"
	most     = 64 << 20
	calls    = 1000
	every    = 3
	rounds   = 20
	patience = 20 * time.Second
)

// names of the codes that these tests look for, as the specification and the other clients write them.
var names = map[codes.Code]string{
	codes.Canceled:         "CANCELLED",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.PermissionDenied: "PERMISSION_DENIED",
}

// raw passes messages through; it is called what clients call protobuf.
type raw struct{}

func (raw) Marshal(v interface{}) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Name() string                          { return "proto" }
func (raw) Unmarshal(data []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// failure is how a call failed: code and message.
type failure []string

func failed(err error) failure {
	code := status.Code(err)
	name, known := names[code]
	if !known {
		name = code.String()
	}
	return failure{name, status.Convert(err).Message()}
}

func (one failure) String() string { return fmt.Sprintf("[%q, %q]", one[0], one[1]) }

// outcome is what a call gave, or its failure.
func outcome(value interface{}, err error) interface{} {
	if err != nil {
		return failed(err)
	}
	return value
}

type client struct{ channel *grpc.ClientConn }

func (c client) unary(method string, request []byte, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var answer []byte
	err := c.channel.Invoke(ctx, method, &request, &answer)
	return string(answer), err
}

// open begins a streaming call; the function ends it.
func (c client) open(method string) (grpc.ClientStream, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	stream, err := c.channel.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	return stream, cancel, err
}

// all sends messages and gives all answers.
func (c client) all(method string, messages ...[]byte) ([]string, error) {
	stream, cancel, err := c.open(method)
	defer cancel()
	if err != nil {
		return nil, err
	}
	// Beside the reading: a server that answers each message waits where nobody reads. Of a call that is over, RecvMsg
	// says how it ended.
	go func() {
		for number := range messages {
			if stream.SendMsg(&messages[number]) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	answers := []string{}
	for {
		var answer []byte
		if err := stream.RecvMsg(&answer); errors.Is(err, io.EOF) {
			return answers, nil
		} else if err != nil {
			return nil, err
		}
		answers = append(answers, string(answer))
	}
}

// echo sends a message on a stream, and is true if it is what comes back.
func echo(stream grpc.ClientStream, message []byte) (bool, error) {
	if err := stream.SendMsg(&message); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	var answer []byte
	err := stream.RecvMsg(&answer)
	return bytes.Equal(answer, message), err
}

// four is a call of each of the four kinds, and what each gave.
func (c client) four(service, unary, fromClient, fromServer, both string) map[string]interface{} {
	found := map[string]interface{}{}
	found["unary"] = outcome(c.unary(service+unary, []byte("one"), patience))
	many := make([][]byte, 20)
	for number := range many {
		many[number] = make([]byte, 1000)
	}
	sums, err := c.all(service+fromClient, many...)
	found["client"] = outcome(strings.Join(sums, " and "), err)
	messages, err := c.all(service+fromServer, []byte("20 3000"))
	sizes := []int{}
	for _, message := range messages {
		sizes = append(sizes, len(message))
	}
	found["server"] = outcome(sizes, err)
	found["both"] = outcome(c.all(service+both, []byte("a"), []byte(""), []byte("c")))
	return found
}

// thousand is many calls at once, of which every third is refused: how many of each outcome.
func (c client) thousand() map[string]int {
	outcomes := make([]string, calls)
	var running sync.WaitGroup
	for number := range outcomes {
		running.Add(1)
		go func(number int) {
			defer running.Done()
			method, sent := orders+"Get", strconv.Itoa(number)
			if number%every == 0 {
				method = admin + "Delete"
			}
			shown := `"WRONG"`
			if answer, err := c.unary(method, []byte(sent), 2*patience); err != nil {
				shown = failed(err).String()
			} else if answer == sent {
				shown = `"OK"`
			}
			outcomes[number] = fmt.Sprintf("%t %s", number%every == 0, shown)
		}(number)
	}
	running.Wait()
	counts := map[string]int{}
	for _, one := range outcomes {
		counts[one]++
	}
	return counts
}

func (c client) deadline() []string {
	_, err := c.unary(orders+"Wait", nil, 500*time.Millisecond)
	return failed(err)[:1]
}

// cancel is a stream that is cancelled in the middle, and a call behind it.
func (c client) cancel() interface{} {
	stream, cancel, err := c.open(orders + "Chat")
	if err == nil {
		_, err = echo(stream, []byte("x"))
	}
	if err != nil {
		return failed(err)
	}
	cancel()
	_, err = echo(stream, []byte("y"))
	after, afterwards := c.unary(orders+"Get", []byte("after"), patience)
	return []interface{}{failed(err)[:1], outcome(after, afterwards)}
}

// big is 4 MiB there and back, alone and as a stream of four.
func (c client) big() interface{} {
	data := make([]byte, 4<<20)
	if _, err := rand.Read(data); err != nil {
		log.Fatal(err)
	}
	unary, err := c.unary(orders+"Get", data, patience)
	if err != nil {
		return failed(err)
	}
	answers, err := c.all(orders+"Chat", data, data, data, data)
	if err != nil {
		return failed(err)
	}
	whole := len(answers) == 4
	for _, answer := range answers {
		whole = whole && answer == string(data)
	}
	return []bool{unary == string(data), whole}
}

// beside is a stream that goes on while calls beside it are refused: what became of it, and of them.
func (c client) beside() interface{} {
	stream, cancel, err := c.open(orders + "Chat")
	defer cancel()
	if err != nil {
		return failed(err)
	}
	counts := map[string]int{}
	for round := 0; round < rounds; round++ {
		_, unary := c.unary(admin+"Delete", []byte("x"), patience)
		_, chat := c.all(admin+"Shell", []byte("a"), []byte("b"))
		counts[failed(unary).String()]++
		counts[failed(chat).String()]++
		same, err := echo(stream, []byte(strconv.Itoa(round)))
		if err != nil {
			return failed(err)
		} else if !same {
			return "another's answer"
		}
	}
	if err := stream.CloseSend(); err != nil {
		return failed(err)
	}
	return []interface{}{errors.Is(stream.RecvMsg(new([]byte)), io.EOF), counts}
}

func (c client) everything() interface{} {
	allowed := func() interface{} { return c.four(orders, "Get", "Sum", "List", "Chat") }
	found := map[string]interface{}{"allowed": allowed()}
	found["refused"] = c.four(admin, "Delete", "Purge", "Dump", "Shell")
	found["again"] = allowed()
	found["thousand"] = c.thousand()
	found["deadline"] = c.deadline()
	found["cancel"] = c.cancel()
	found["big"] = c.big()
	return found
}

func main() {
	limits := grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(most))
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	channel, err := grpc.NewClient(net.JoinHostPort(os.Args[1], os.Args[2]), plain, limits)
	if err != nil {
		log.Fatal(err)
	}
	c := client{channel}
	var found interface{}
	switch strings.Join(os.Args[3:], " ") {
	case "thousand":
		found = c.thousand()
	case "beside":
		found = c.beside()
	default:
		found = c.everything()
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}
