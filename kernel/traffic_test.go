package kernel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Streams of every kind side by side on one connection, begun, used and ended in
// every way: what is sent arrives whole and in order, nothing waits for ever, every end
// is reported as it should be, and it stays one connection.
func TestTrafficOfEveryKind(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		serveTraffic(w)
		kinds := []func(*worker) error{
			(*worker).call, (*worker).echo, (*worker).cutShort, (*worker).stops, (*worker).slow,
		}
		if w.caps.Status { // else the end carries no status
			kinds = append(kinds, (*worker).cancelledCall, (*worker).cancelledStream)
		}
		if w.stopsAtEnd() || !w.caps.HalfClose { // else a writer does not learn that its reader has ended
			kinds = append(kinds, (*worker).refusedEarly, (*worker).leftEarly)
		}
		if w.caps.MaxGroup > 1 {
			kinds = append(kinds, (*worker).group)
		}
		steps := 40
		if raceEnabled {
			steps = 8
		}
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(n), 1))
				for i := range steps {
					k := r.IntN(len(kinds))
					if err := kinds[k](&worker{w, r}); err != nil {
						t.Errorf("worker %d, step %d, kind %d: %v", n, i, k, err)
						return
					}
				}
			})
		}
		wg.Wait()
		w.Eventually("the connection to be counted", func() bool { return w.Srv.Stats().Accepted > 0 })
		if n := w.Srv.Stats().Accepted; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func serveTraffic(w *world) {
	w.Srv.Handle("echo", echo)
	w.Srv.Handle("early", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		m.Release()
		return &status.HandlerError{Code: status.InvalidArgument, Reason: "enough"}
	})
	w.Srv.Handle("gone", func(context.Context, *kernel.Stream) error { return nil })
	w.Srv.Handle("source", func(ctx context.Context, s *kernel.Stream) error {
		r := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			if err := sendOrRelease(ctx, s, payload(r)); err != nil {
				return err
			}
		}
		return nil
	})
	w.Srv.Handle("slow", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			time.Sleep(200 * time.Microsecond)
			m.Release()
		}
		return nil
	})
	w.Srv.Handle("stuck", func(ctx context.Context, _ *kernel.Stream) error {
		<-ctx.Done()
		return ctx.Err()
	})
	w.Srv.HandleOffer("group", func(_ context.Context, o *kernel.Offer) error {
		ss, err := o.AcceptAll(pool.Message{}, nil)
		for _, s := range ss {
			go func() {
				_ = echo(s.Context(), s)
				_ = s.Close(w.Ctx)
			}()
		}
		return err
	})
}

// payload is a message of a random size with its sum in front.
func payload(r *rand.Rand) pool.Message {
	n := r.IntN(100)
	switch r.IntN(10) {
	case 0:
		n = r.IntN(300_000)
	case 1, 2, 3:
		n = r.IntN(5000)
	}
	p := bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(r.Uint32())}, n/3)
	sum := sha256.Sum256(p)
	return pool.MessageOf(append(sum[:], p...))
}

func isWhole(m pool.Message) bool {
	b := m.Bytes()
	return len(b) >= sha256.Size && sha256.Sum256(b[sha256.Size:]) == [sha256.Size]byte(b)
}

func sendOrRelease(ctx context.Context, s *kernel.Stream, m pool.Message) error {
	err := s.Send(ctx, m)
	if err != nil {
		m.Release()
	}
	return err
}

// A worker runs one operation after the other.
type worker struct {
	w *world
	r *rand.Rand
}

func (v *worker) open(method string) (*kernel.Stream, error) {
	return v.w.Client.Open(v.w.Ctx, method, nil)
}

func (v *worker) call() error {
	m := payload(v.r)
	reply, err := v.w.Client.Call(v.w.Ctx, "echo", m, nil)
	if err != nil {
		m.Release()
		return err
	}
	defer reply.Release()
	if !isWhole(reply) {
		return errors.New("the reply is not what was sent")
	}
	return nil
}

func (v *worker) cancelledCall() error {
	ctx, cancel := context.WithTimeout(v.w.Ctx, time.Duration(v.r.IntN(2000))*time.Microsecond)
	defer cancel()
	m := payload(v.r)
	defer m.Release()
	if _, err := v.w.Client.Call(ctx, "stuck", m, nil); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("cancelled, and told %w", err)
	}
	return nil
}

func (v *worker) echo() error {
	s, err := v.open("echo")
	if err != nil {
		return err
	}
	return v.exchange(s, 1+v.r.IntN(20))
}

func (v *worker) group() error {
	ss, err := v.w.Client.OpenN(v.w.Ctx, "group", nil, make([]kernel.StreamOptions, 3)...)
	if err != nil {
		return err
	}
	errs := make(chan error)
	for i, s := range ss {
		mine := &worker{v.w, rand.New(rand.NewPCG(v.r.Uint64(), uint64(i)))}
		go func() { errs <- mine.exchange(s, 5) }()
	}
	return errors.Join(<-errs, <-errs, <-errs)
}

// exchange sends n messages in one of three ways, and has them back.
func (v *worker) exchange(s *kernel.Stream, n int) error {
	sent := make(chan error, 1)
	way, r := v.r.IntN(3), rand.New(rand.NewPCG(v.r.Uint64(), 3))
	go func() {
		for range n {
			if err := v.sendBy(s, way, payload(r)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := range n {
		m, err := s.Receive(v.w.Ctx)
		if err != nil {
			return fmt.Errorf("message %d of %d: %w", i, n, err)
		}
		if !isWhole(m) {
			return fmt.Errorf("message %d of %d is not what was sent", i, n)
		}
		m.Release()
	}
	if err := <-sent; err != nil {
		return err
	}
	return s.Close(v.w.Ctx)
}

func (v *worker) sendBy(s *kernel.Stream, way int, m pool.Message) error {
	switch way {
	case 0:
		select {
		case s.Out() <- m:
			return nil
		case <-s.SendDone():
		}
	case 1:
		if slot, ok := <-s.Writable(); ok {
			return slot.Send(m)
		}
	default:
		return sendOrRelease(v.w.Ctx, s, m)
	}
	m.Release()
	return errors.New("the sending half is over")
}

// upload sends until the peer wants no more.
func (v *worker) upload(s *kernel.Stream) error {
	for {
		if err := sendOrRelease(v.w.Ctx, s, payload(v.r)); err != nil {
			return err
		}
	}
}

func (v *worker) refusedEarly() error {
	s, err := v.open("early")
	if err != nil {
		return err
	}
	_ = v.upload(s)
	_, err = s.Receive(v.w.Ctx)
	_ = s.Close(v.w.Ctx)
	if want := v.w.told(status.InvalidArgument); !errors.Is(err, &status.StreamError{Code: want}) {
		return fmt.Errorf("an upload was refused, and told %w", err)
	}
	return nil
}

func (v *worker) leftEarly() error {
	s, err := v.open("gone")
	if err != nil {
		return err
	}
	if err := v.upload(s); !errors.Is(err, kernel.ErrStopped) {
		return fmt.Errorf("an upload's reader has left, and it is told %w", err)
	}
	return s.Close(v.w.Ctx)
}

func (v *worker) cutShort() error {
	s, err := v.take("source")
	if err == nil {
		s.Abort(status.Cancelled, "enough")
		drain(s)
	}
	return err
}

func (v *worker) stops() error {
	s, err := v.take("source")
	if err != nil {
		return err
	}
	s.CloseReceive(status.OK)
	return s.Close(v.w.Ctx)
}

// take opens a stream and reads some of what comes, or all.
func (v *worker) take(method string) (*kernel.Stream, error) {
	s, err := v.open(method)
	if err != nil {
		return nil, err
	}
	for range v.r.IntN(70) {
		m, err := s.Receive(v.w.Ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if !isWhole(m) {
			return nil, errors.New("a message is not what was sent")
		}
		m.Release()
	}
	return s, nil
}

func (v *worker) slow() error {
	s, err := v.open("slow")
	if err != nil {
		return err
	}
	for range 30 {
		if err := sendOrRelease(v.w.Ctx, s, payload(v.r)); err != nil {
			return err
		}
	}
	return s.Close(v.w.Ctx)
}

func (v *worker) cancelledStream() error {
	ctx, cancel := context.WithCancel(v.w.Ctx)
	defer cancel()
	s, err := v.w.Client.Open(ctx, "echo", nil)
	if err != nil {
		return err
	}
	time.AfterFunc(time.Duration(v.r.IntN(2000))*time.Microsecond, cancel)
	err = v.upload(s)
	drain(s)
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("a stream was cancelled, and is told %w", err)
	}
	return nil
}
