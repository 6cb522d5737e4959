// The Centrifuge library as a server for the benchmark: one channel with history, published to as fast as it is accepted.
//
// Prints the port of its WebSocket. For each line "MESSAGES BYTES" on stdin it publishes so many messages of so many
// bytes one after the other, and prints the CPU time of the process so far, in seconds, before and after. Ends with its stdin.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
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
		var messages, size int
		if _, err := fmt.Sscan(lines.Text(), &messages, &size); err != nil {
			log.Fatal(err)
		}
		began := cpuSeconds()
		publish(node, messages, size)
		fmt.Println(began, cpuSeconds())
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

func publish(node *centrifuge.Node, messages, size int) {
	data, _ := json.Marshal(map[string]string{"x": strings.Repeat("x", size-len(`{"x":""}`))})
	history := centrifuge.WithHistory(1000, time.Hour)
	for range messages {
		if _, err := node.Publish(channel, data, history); err != nil {
			log.Fatal(err)
		}
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return seconds(usage.Utime) + seconds(usage.Stime)
}

func seconds(time syscall.Timeval) float64 {
	return float64(time.Sec) + float64(time.Usec)/1e6
}
