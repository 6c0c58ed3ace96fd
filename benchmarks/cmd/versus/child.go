package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/all"
	"github.com/sluicerpc/sluice/benchmarks/workload"
)

// commandFD is where the client's process finds the pipe to the server's
// standard input.
const commandFD = 3

// The requests of the client to the server's process, one line each. The answer is one
// line of JSON.
const (
	askSample  = "sample"
	askSettled = "settled"
)

// hello is the first line from a server's process.
type hello struct {
	Addr string `json:"addr"`
}

// outcome is the line that a client's process ends with.
type outcome struct {
	Result *workload.Result `json:"result,omitempty"`
	Error  string           `json:"error,omitempty"`
	Faulty bool             `json:"faulty,omitempty"` // messages lost, doubled, reordered or damaged
}

// task is the configuration of both processes of a run.
type task struct {
	peer     peer.Peer
	workload workload.Workload
	config   workload.Config
	limit    time.Duration
	profile  string
}

func parseTask(args []string) (*task, error) {
	t := &task{}
	fs := flag.NewFlagSet("versus", flag.ContinueOnError)
	name := fs.String("peer", "", "peer")
	load := fs.String("workload", "", "workload")
	limit := fs.Int("cap", 0, "at most this many streams and connections")
	fs.BoolVar(&t.config.Checksum, "checksum", false, "checksums in the transport")
	fs.BoolVar(&t.config.TLS, "tls", false, "TLS")
	fs.DurationVar(&t.config.Time, "time", time.Second, "how long to measure")
	fs.DurationVar(&t.config.Warmup, "warmup", 0, "how long to run before")
	fs.Int64Var(&t.config.Messages, "messages", 0, "how many messages to measure")
	fs.DurationVar(&t.limit, "limit", time.Minute, "how long the run may take")
	fs.StringVar(&t.profile, "profile", "", "write a CPU profile to this `file`")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if t.peer, err = all.Find(*name); err != nil {
		return nil, err
	}
	found, err := workload.Find(*load)
	if err != nil {
		return nil, err
	}
	t.workload = found[0]
	if *limit > 0 {
		t.workload = t.workload.Capped(*limit)
	}
	return t, nil
}

// profiled runs f under the CPU profiler if a file is named.
func profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return errors.Join(err, out.Close())
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, out.Close())
}

// serve is the server's process. It ends when its standard input does.
func serve(args []string) error {
	t, err := parseTask(args)
	if err != nil {
		return err
	}
	return profiled(t.profile, func() error { return t.serve(os.Stdin, os.Stdout) })
}

func (t *task) serve(in io.Reader, out io.Writer) error {
	o := t.workload.Options()
	o.Checksum, o.TLS = t.config.Checksum, t.config.TLS
	o.Serving = new(atomic.Int64)
	s, err := t.peer.Serve("127.0.0.1:0", o)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	enc := json.NewEncoder(out)
	if err := enc.Encode(hello{Addr: s.Addr()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		sample, err := workload.Take(lines.Text() == askSettled)
		if err != nil {
			return err
		}
		sample.Serving = o.Serving.Load()
		if err := enc.Encode(sample); err != nil {
			return err
		}
	}
	return nil // the process ends, and with it what is open
}

// run is the client's process: it drives the workload and prints an outcome.
func run(ctx context.Context, args []string) error {
	t, err := parseTask(args)
	if err != nil {
		return err
	}
	commands := os.NewFile(commandFD, "commands")
	answers := json.NewDecoder(os.Stdin)
	var h hello
	if err := answers.Decode(&h); err != nil {
		return fmt.Errorf("the server did not start: %w", err)
	}
	t.config.Addr = h.Addr
	if rtt := t.workload.RTT; rtt > 0 {
		end, err := t.between(rtt)
		if err != nil {
			return err
		}
		defer end()
	}
	t.config.Probe = func(settled bool) (workload.Sample, error) { return ask(commands, answers, settled) }
	return profiled(t.profile, func() error { return t.run(ctx, os.Stdout) })
}

func ask(commands io.Writer, answers *json.Decoder, settled bool) (s workload.Sample, err error) {
	line := askSample
	if settled {
		line = askSettled
	}
	if _, err := fmt.Fprintln(commands, line); err != nil {
		return s, fmt.Errorf("the server is gone: %w", err)
	}
	if err := answers.Decode(&s); err != nil {
		return s, fmt.Errorf("the server is gone: %w", err)
	}
	return s, nil
}

func (t *task) run(ctx context.Context, out io.Writer) error {
	late := fmt.Errorf("not done after %v", t.limit)
	ctx, cancel := context.WithTimeoutCause(ctx, t.limit, late)
	defer cancel()
	var o outcome
	res, err := workload.Run(ctx, t.workload, t.peer, t.config)
	o.Faulty = res.Delivery.Err() != nil
	if err != nil {
		o.Error = err.Error()
	} else {
		o.Result = &res
	}
	return json.NewEncoder(out).Encode(o)
}
