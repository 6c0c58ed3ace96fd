package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Eventually waits until cond holds. It is for what has no event to wait for.
func Eventually(t testing.TB, what string, cond func() bool, detail ...func() string) {
	t.Helper()
	for end := time.Now().Add(Patience / 2); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			for _, d := range detail {
				what += ": " + d()
			}
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// Drain releases what a stream that is over still holds.
func Drain(s *kernel.Stream) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			return
		}
		m.Release()
	}
}

// Text is a message of a text.
func Text(format string, args ...any) pool.Message {
	return pool.Copy(fmt.Appendf(nil, format, args...))
}

// Sized is a message of n bytes.
func Sized(n int, fill byte) pool.Message {
	m := pool.New(n)
	copy(m.Bytes(), bytes.Repeat([]byte{fill}, n))
	return m
}

// MetadataOf is metadata that counts n bytes.
func MetadataOf(n int) metadata.MD {
	return metadata.MD{{Key: "k", Value: strings.Repeat("v", n-33)}}
}

// UnreadOf is how many bytes of credit wait at c to be taken, or to be written, and are
// assembled.
func UnreadOf(c *kernel.Conn) int {
	b := c.Snapshot()
	return b.Memory - b.Own - b.OpenBytes
}

// HeldBy is what a server counts as held by all connections, without what they take
// themselves.
func HeldBy(srv *kernel.Server) (n int) {
	for _, c := range srv.Conns() {
		i := c.Snapshot()
		n += i.Memory - i.Own
	}
	return n
}

// WantCode checks that err is a StreamError of code c.
func WantCode(t testing.TB, err error, c status.Code) *status.StreamError {
	t.Helper()
	var se *status.StreamError
	if !errors.As(err, &se) || se.Code != c {
		t.Fatalf("got %v, want a StreamError of code %v", err, c)
	}
	return se
}

// WantClosed waits until c is closed.
func WantClosed[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	select {
	case v, ok := <-c:
		if ok {
			t.Fatalf("%s gave %v, want it closed", what, v)
		}
	case <-time.After(Patience):
		t.Fatalf("%s was not closed", what)
	}
}

// WantOpen checks that c has nothing and is not closed.
func WantOpen[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	select {
	case v, ok := <-c:
		t.Fatalf("%s gave %v, %v", what, v, ok)
	default:
	}
}

// Echo is a handler that sends back what it receives.
func Echo(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		if err := s.Send(ctx, m); err != nil {
			m.Release()
			return err
		}
	}
	return nil
}

// Must returns a function that returns v, where nothing may go wrong.
func Must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// OK fails the test if err is an error.
func OK(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// IsErr checks that err is want.
func IsErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}
