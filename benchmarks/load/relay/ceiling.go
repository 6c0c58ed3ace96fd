package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// How long a ceiling is measured, once the first bytes have arrived and TCP has had time to grow
// its windows.
const (
	settling  = 300 * time.Millisecond
	measuring = 500 * time.Millisecond
)

// Ceiling measures at what rate, in bytes a second, raw bytes get one way through a relay with a
// delay: on one connection, from this process, by a relay in this process, to this process.
// Nothing that goes through such a relay can be faster.
func Ceiling(ctx context.Context, delay time.Duration) (rate float64, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	r, err := New(ln.Addr().String())
	if err != nil {
		return 0, err
	}
	r.Delay(delay)
	src, err := net.Dial("tcp", r.Addr())
	if err != nil {
		r.Close()
		return 0, err
	}
	dst, err := ln.Accept()
	if err != nil {
		src.Close()
		r.Close()
		return 0, err
	}
	var got atomic.Int64
	var both sync.WaitGroup // end when their connections do
	both.Go(func() { pour(src) })
	both.Go(func() { drain(dst, &got) })
	defer func() {
		r.Close()
		src.Close()
		dst.Close()
		both.Wait()
	}()
	if !sleep(ctx, delay+settling) {
		return 0, ctx.Err()
	}
	from, start := got.Load(), time.Now()
	if !sleep(ctx, measuring) {
		return 0, ctx.Err()
	}
	n, took := got.Load()-from, time.Since(start)
	if n == 0 {
		return 0, fmt.Errorf("no byte gets through a relay with a delay of %v", delay)
	}
	return float64(n) / took.Seconds(), nil
}

func pour(c net.Conn) {
	p := make([]byte, readSize)
	for {
		if _, err := c.Write(p); err != nil {
			return
		}
	}
}

func drain(c io.Reader, got *atomic.Int64) {
	p := make([]byte, readSize)
	for {
		n, err := c.Read(p)
		got.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
