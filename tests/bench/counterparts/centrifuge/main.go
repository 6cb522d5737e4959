// The Centrifuge library as a server for the benchmark: one channel with history, published to as fast as it is accepted.
//
// Prints the port of its WebSocket. For each line "MESSAGES BYTES RATE" on stdin it publishes so many messages of about so
// many bytes, so many a second, or with 0 one after the other, and prints how many. Each says when it was sent, by the
// machine's monotonic clock, in seconds. Ends with its stdin.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"
	"golang.org/x/sys/unix"
)

const channel = "orders:status"

func main() {
	node := newNode()
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	handler := withCredentials(centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	go func() { log.Fatal(http.Serve(listener, handler)) }()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)

	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var messages, size, rate int
		if _, err := fmt.Sscan(lines.Text(), &messages, &size, &rate); err != nil {
			log.Fatal(err)
		}
		publish(node, messages, size, rate)
		fmt.Println(messages)
	}
}

func newNode() *centrifuge.Node {
	node, err := centrifuge.New(centrifuge.Config{ClientQueueMaxSize: 64 << 20})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
			reply(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{EnablePositioning: true}}, nil)
		})
	})
	return node
}

func withCredentials(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		anonymous := centrifuge.SetCredentials(r.Context(), &centrifuge.Credentials{})
		next.ServeHTTP(w, r.WithContext(anonymous))
	})
}

func publish(node *centrifuge.Node, messages, size, rate int) {
	filler := strings.Repeat("x", size)
	history := centrifuge.WithHistory(1000, time.Hour)
	began := time.Now()
	for number := range messages {
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(number) * time.Second / time.Duration(rate))))
		}
		data := fmt.Sprintf(`{"sent":%.6f,"filler":"%s"}`, monotonicSeconds(), filler[:size-len(`{"sent":1234.123456,"filler":""}`)])
		if _, err := node.Publish(channel, []byte(data), history); err != nil {
			log.Fatal(err)
		}
	}
}

func monotonicSeconds() float64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		log.Fatal(err)
	}
	return float64(now.Nano()) / 1e9
}
