// Measures go.etcd.io/etcd/client/v3/concurrency, the reference implementation of locks and elections on etcd, so
// that others can be compared with it on the same machine and the same server.
//
// Every subcommand prints exactly one JSON object on one line. One that does not exist exits with notOffered.

//go:debug default=go1.24
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"

	etcdversion "go.etcd.io/etcd/api/v3/version"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// notOffered is EX_USAGE of sysexits.h.
const notOffered = 64

// epoch is the zero of the in-process monotonic clock.
var epoch = time.Now()

// now is nanoseconds on the in-process monotonic clock.
func now() int64 { return int64(time.Since(epoch)) }

type settings struct {
	endpoints string
	metrics   string
	pids      string
	label     string
	clients   int
	ttl       int
}

type env struct {
	settings
	clis   []*clientv3.Client
	murls  []string
	spids  []int
	prefix string
	out    map[string]any
}

func (e *env) cli() *clientv3.Client         { return e.clis[0] }
func (e *env) cliFor(i int) *clientv3.Client { return e.clis[i%len(e.clis)] }
func (e *env) set(key string, value any)     { e.out[key] = value }
func (e *env) key(format string, a ...any) string {
	return e.prefix + fmt.Sprintf(format, a...)
}

func split(s string) []string {
	var out []string
	for _, p := range strings.Split(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// open connects to etcd, for that many sessions.
func open(s settings, sessions int, dial ...grpc.DialOption) (*env, error) {
	if s.clients == 0 {
		s.clients = sessions
	}
	e := &env{settings: s, murls: split(s.metrics), out: map[string]any{}}
	for _, p := range split(s.pids) {
		n, err := strconv.Atoi(p)
		if err != nil {
			return nil, fmt.Errorf("--etcd-pid: %w", err)
		}
		e.spids = append(e.spids, n)
	}
	e.prefix = fmt.Sprintf("peers/%d-%d/", os.Getpid(), time.Now().UnixNano())
	for i := 0; i < s.clients; i++ {
		c, err := clientv3.New(clientv3.Config{
			Endpoints:   split(s.endpoints),
			DialTimeout: 10 * time.Second,
			DialOptions: dial,
		})
		if err != nil {
			return nil, err
		}
		// One request, so that connecting is not part of what is measured.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err = c.Get(ctx, "peers/connect")
		cancel()
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		e.clis = append(e.clis, c)
	}
	return e, nil
}

func (e *env) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, _ = e.cli().Delete(ctx, e.prefix, clientv3.WithPrefix())
	for _, c := range e.clis {
		_ = c.Close()
	}
}

type command struct {
	help string
	run  func(name string, args []string) (*env, error)
}

var commands = map[string]command{
	"uncontended": {"lock+unlock of one mutex that nobody else wants", runUncontended},
	"handoff":     {"W sessions passing one lock round", runHandoff},
	"floor":       {"what the server itself costs: single requests and one watch event", runFloor},
	"queue":       {"enqueue W waiters behind a holder, then drain the queue", runQueue},
	"election":    {"campaign/resign hand-over, observer delay, fail-over", runElection},
	"herd":        {"watch events and messages the server sends per release", runHerd},
}

// flags makes a flag set that has the settings common to all subcommands.
func flags(name string) (*flag.FlagSet, *settings) {
	fs := flag.NewFlagSet(name, flag.ExitOnError)
	s := &settings{}
	fs.StringVar(&s.endpoints, "endpoints", "127.0.0.1:2379", "etcd endpoints, comma separated")
	fs.StringVar(&s.metrics, "metrics", "", "etcd /metrics URLs, comma separated (summed); empty: no server counters")
	fs.StringVar(&s.pids, "etcd-pid", "", "pids of etcd, comma separated; empty: no server memory and CPU")
	fs.StringVar(&s.label, "label", "", "text copied into the output")
	fs.IntVar(&s.clients, "clients", 1, "client connections; session i uses client i mod N; 0: one for each session")
	fs.IntVar(&s.ttl, "ttl", 60, "session TTL in seconds")
	return fs, s
}

func usage() {
	names := make([]string, 0, len(commands))
	for n := range commands {
		names = append(names, n)
	}
	sort.Strings(names)
	fmt.Fprintln(os.Stderr, "usage: go-concurrency SUBCOMMAND [flags]   (go-concurrency SUBCOMMAND --help)")
	for _, n := range names {
		fmt.Fprintf(os.Stderr, "  %-12s %s\n", n, commands[n].help)
	}
}

func main() {
	if len(os.Args) < 2 {
		usage()
		os.Exit(2)
	}
	name := os.Args[1]
	c, ok := commands[name]
	if !ok {
		usage()
		os.Exit(notOffered)
	}
	start := time.Now()
	e, err := c.run(name, os.Args[2:])
	if err == nil && e == nil {
		err = errors.New("no result")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "go-concurrency %s: %v\n", name, err)
		os.Exit(1)
	}
	e.set("bench", name)
	e.set("impl", "go.etcd.io/etcd/client/v3/concurrency")
	e.set("impl_version", etcdversion.Version)
	e.set("go", runtime.Version())
	e.set("gomaxprocs", runtime.GOMAXPROCS(0))
	e.set("label", e.label)
	e.set("endpoints", e.endpoints)
	e.set("clients", e.settings.clients)
	e.set("started", start.UTC().Format(time.RFC3339))
	e.set("total_s", round(time.Since(start).Seconds(), 3))
	line, err := json.Marshal(e.out)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(line))
	e.close()
}
