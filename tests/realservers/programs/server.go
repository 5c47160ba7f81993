// Go's net/http server: server PORT JOURNAL
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	journal, err := os.OpenFile(os.Args[2], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		panic(err)
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		line := fmt.Sprintf("%s\t%s\t%s\t%s\t200\n", r.Method, r.RequestURI, r.URL.Path, r.Host)
		if _, err := journal.WriteString(line); err != nil {
			panic(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ran "+line)
	}
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(handler)))
}
