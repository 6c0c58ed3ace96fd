package rpc_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/rpc/protocodec"
)

// BenchmarkRatio compares the rate of typed values with that of messages, in one run: in
// each round some values go each way in turn, so that what else the machine does meets all
// of them. It reports medians: the time of a value, and the typed rate in parts of that of
// a program which does the codec's work by hand, and of one which looks at no byte.
func BenchmarkRatio(b *testing.B) {
	ratios(b, 64, "fixed struct", codec.Fixed, wide{A: 1}, wideByHand)
	for _, size := range []int{64, 1 << 10, 64 << 10, 1 << 20} {
		text := strings.Repeat("x", size)
		ratios(b, size, "raw string", codec.Raw, text, byHand[string]{
			func(v string) (pool.Message, error) { return filled(0, v), nil },
			func(p []byte) (string, error) { return string(p), nil },
		})
		ratios(b, size, "raw bytes", codec.Raw, []byte(text), byHand[[]byte]{
			func(v []byte) (pool.Message, error) { return pool.Copy(v), nil },
			func(p []byte) ([]byte, error) { return slices.Clone(p), nil },
		})
		ratios(b, size, "fixed string", codec.Fixed, text, byHand[string]{
			func(v string) (pool.Message, error) {
				m := filled(4, v)
				binary.LittleEndian.PutUint32(m.Bytes(), uint32(len(v)))
				return m, nil
			},
			func(p []byte) (string, error) { return string(p[4:]), nil },
		})
		ratios(b, size, "JSON string", codec.JSON, text, jsonByHand[string]())
		ratios(b, size, "JSON struct", codec.JSON, document{1, "name", text}, jsonByHand[document]())
		ratios(b, size, "protobuf", protocodec.Encoding, wrapperspb.String(text), protobufByHand)
	}
}

// document is a value of which most is text.
type document struct {
	ID         int
	Name, Body string
}

// byHand is what a program does that has values and sends messages.
type byHand[T any] struct {
	message func(v T) (pool.Message, error)
	value   func(p []byte) (T, error)
}

// filled is a message of v behind some room.
func filled(room int, v string) pool.Message {
	m := pool.New(room + len(v))
	copy(m.Bytes()[room:], v)
	return m
}

var wideByHand = byHand[wide]{
	func(v wide) (pool.Message, error) {
		m := pool.New(64)
		p := m.Bytes()
		for i, n := range [...]uint64{v.A, v.B, v.C, v.D, v.E, v.F, v.G, v.H} {
			binary.LittleEndian.PutUint64(p[8*i:], n)
		}
		return m, nil
	},
	func(p []byte) (v wide, err error) {
		for i, n := range [...]*uint64{&v.A, &v.B, &v.C, &v.D, &v.E, &v.F, &v.G, &v.H} {
			*n = binary.LittleEndian.Uint64(p[8*i:])
		}
		return v, nil
	},
}

var protobufByHand = byHand[*wrapperspb.StringValue]{
	func(v *wrapperspb.StringValue) (pool.Message, error) {
		m := pool.New(proto.Size(v))
		_, err := proto.MarshalOptions{}.MarshalAppend(m.Bytes()[:0], v)
		return m, err
	},
	func(p []byte) (*wrapperspb.StringValue, error) {
		v := &wrapperspb.StringValue{}
		return v, proto.Unmarshal(p, v)
	},
}

func jsonByHand[T any]() byHand[T] {
	return byHand[T]{
		func(v T) (pool.Message, error) {
			p, err := json.Marshal(v)
			return pool.MessageOf(p), err
		},
		func(p []byte) (v T, err error) {
			err = json.Unmarshal(p, &v)
			return v, err
		},
	}
}

func ratios[T any](b *testing.B, size int, name string, e *codec.Encoding, v T, hand byHand[T]) {
	for _, way := range []string{"Receive", "In", "All"} {
		b.Run(fmt.Sprintf("%d B %s by %s", size, name, way), func(b *testing.B) {
			m, err := hand.message(v)
			ok(b, err)
			length := m.Len()
			m.Release()
			count := max(16, min(20_000, 16<<20/length))
			typed := typedLane(b, way, e, v)
			made := messageLane(b, way, func() (pool.Message, error) { return hand.message(v) }, func(p []byte) error {
				_, err := hand.value(p)
				return err
			})
			untouched := messageLane(b, way, func() (pool.Message, error) { return pool.New(length), nil }, nil)
			lanes := []*lane{typed, made, untouched}
			for i := 0; b.Loop(); i++ {
				for j := range lanes {
					lanes[(i+j)%len(lanes)].run(b, count)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(typed.took)/float64(count), "ns/typed")
			b.ReportMetric(median(made.took)/float64(count), "ns/by-hand")
			b.ReportMetric(median(untouched.took)/float64(count), "ns/untouched")
			b.ReportMetric(made.over(typed), "of-by-hand")
			b.ReportMetric(untouched.over(typed), "of-untouched")
			for _, l := range lanes {
				l.end()
			}
		})
	}
}

// A lane is one way to send values, on a connection of its own, with the times that the
// rounds took.
type lane struct {
	w    *world
	send func() error
	take func(n int) error
	end  func()
	took []time.Duration
}

func (l *lane) run(b *testing.B, n int) {
	began := time.Now()
	sent := make(chan error, 1)
	go func() {
		for range n {
			if err := l.send(); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	ok(b, l.take(n))
	l.took = append(l.took, time.Since(began))
	ok(b, <-sent)
}

// over is the median of how many times as long as other l has taken in each round.
func (l *lane) over(other *lane) float64 {
	var rs []float64
	for i := range l.took {
		rs = append(rs, float64(l.took[i])/float64(other.took[i]))
	}
	return median(rs)
}

func median[T float64 | time.Duration](vs []T) float64 {
	vs = slices.Sorted(slices.Values(vs))
	return float64(vs[len(vs)/2])
}

func typedLane[T any](b *testing.B, way string, e *codec.Encoding, v T) *lane {
	l, x, y := newLane(b)
	c := testkit.Must[codec.Codec[T]](b)(codec.CodecOf[T](e))
	sink := testkit.Must[*rpc.Sink[T]](b)(rpc.SinkOf(x, c))
	src := testkit.Must[*rpc.Source[T]](b)(rpc.SourceOf(y, c))
	l.send = func() error { return sink.Send(l.w.Ctx, v) }
	l.take = taking(l.w.Ctx, way, src, func(T) error { return nil })
	return l
}

// messageLane sends what message makes, and has value, if it is not nil, look at what comes.
func messageLane(b *testing.B, way string, message func() (pool.Message, error), value func(p []byte) error) *lane {
	l, x, y := newLane(b)
	l.send = func() error {
		m, err := message()
		if err != nil {
			return err
		}
		return x.Send(l.w.Ctx, m)
	}
	l.take = taking(l.w.Ctx, way, y, func(m pool.Message) (err error) {
		if value != nil {
			err = value(m.Bytes())
		}
		m.Release()
		return err
	})
	return l
}

func newLane(b *testing.B) (l *lane, x, y *kernel.Stream) {
	w := newWorld(b, loops, nil, nil)
	x, y = w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	return &lane{w: w, end: func() { _, _ = x.CloseSend(), y.CloseSend() }}, x, y
}

// taking takes n of what comes from src.
func taking[V any](ctx context.Context, way string, src interface {
	Receive(ctx context.Context) (V, error)
	In() <-chan V
	All(ctx context.Context) iter.Seq2[V, error]
}, look func(V) error) func(n int) error {
	switch way {
	case "Receive":
		return func(n int) error {
			for range n {
				v, err := src.Receive(ctx)
				if err == nil {
					err = look(v)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
	case "In":
		return func(n int) error {
			in := src.In()
			for range n {
				v, more := <-in
				if !more {
					return io.ErrUnexpectedEOF
				}
				if err := look(v); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return func(n int) error {
		for v, err := range src.All(ctx) {
			if err == nil {
				err = look(v)
			}
			if n--; n == 0 || err != nil {
				return err
			}
		}
		return io.ErrUnexpectedEOF
	}
}
