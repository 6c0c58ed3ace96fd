// Command versus runs the same workloads over sluice and over alternatives to it,
// and compares them.
//
// Each run is two processes on loopback, a server and a client, and a third between them where
// the path is to be a long one. The peers take
// turns within each round, so that disturbances of the machine affect all of them
// alike; figures are medians over the rounds.
//
//	go run ./cmd/versus -peers raw,grpc -workloads w1,w2,w3 -rounds 5
//
// It exits with 0 if every run succeeded, 1 if one failed, 2 on bad flags, 3
// if a message was lost, doubled, reordered or damaged, 4 if a report could
// not be written, and 130 after an interrupt.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitFailed    = 1
	exitUsage     = 2
	exitDelivery  = 3
	exitReport    = 4
	exitInterrupt = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(dispatch(ctx, os.Args[1:]))
}

// dispatch runs the comparison, or one of its child processes.
func dispatch(ctx context.Context, args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			return child(serve(args[1:]))
		case "run":
			return child(run(ctx, args[1:]))
		case "relay":
			return child(carry(args[1:], os.Stdin, os.Stdout))
		}
	}
	return compare(ctx, args)
}

func child(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return exitFailed
}

func compare(ctx context.Context, args []string) int {
	s, err := parse(args, os.Stderr)
	switch {
	case errors.Is(err, errHelp):
		return 0
	case errors.Is(err, errReported):
		return exitUsage
	case err != nil:
		fmt.Fprintln(os.Stderr, "versus:", err)
		return exitUsage
	}
	rep := newReport(s)
	err = runAll(ctx, s, rep)
	werr := rep.write(os.Stdout, s)
	if werr != nil {
		fmt.Fprintln(os.Stderr, "versus:", werr)
	}
	return rep.outcome(ctx, err, werr)
}

// outcome returns the exit code of the most important failure: delivery faults before a
// report that could not be written, that before the rest.
func (r *report) outcome(ctx context.Context, err, werr error) int {
	code := r.exitCode()
	switch {
	case code == exitDelivery:
		return code
	case werr != nil:
		return exitReport
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "versus: interrupted; the report holds what there is")
		return exitInterrupt
	case err != nil:
		fmt.Fprintln(os.Stderr, "versus:", err)
		return exitFailed
	}
	return code
}
