// Command faults has clients and servers of grpc-go and of ours talk with each other through a
// relay that breaks their connections: see package faults. It prints what came of each run, and
// ends with status 1 if anything was wrong.
//
//	go run ./cmd/faults               # 1,000 faults of each kind, with each client
//	go run ./cmd/faults -seed 7
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/interop/faults"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

func main() {
	var r faults.Run
	flag.IntVar(&r.Faults, "faults", 1000, "faults of each kind, half of them in each direction")
	flag.Uint64Var(&r.Seed, "seed", 1, "decides the messages and where the faults are")
	flag.IntVar(&r.Parallel, "parallel", 4, "sessions at a time")
	flag.DurationVar(&r.Limit, "limit", 20*time.Second, "what takes longer hangs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := all(ctx, r)
	stop()
	if err == nil {
		err = leftOver(r.Limit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func all(ctx context.Context, r faults.Run) error {
	var wrong error
	for _, p := range faults.Pairs() {
		for _, k := range faults.Kinds() {
			r.Kind = k
			res, err := r.Do(ctx, p)
			fmt.Printf("%s, %v: %v\n", p.Name, k, &res)
			if err != nil {
				fmt.Println(err)
				wrong = errors.New("not as it must be")
			}
		}
	}
	return wrong
}

// leftOver is the goroutines that run when all is closed.
func leftOver(limit time.Duration) (err error) {
	for deadline := time.Now().Add(limit); ; {
		if err = goleak.Find(kerneltest.LeakOptions()...); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
