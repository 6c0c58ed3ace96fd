package rpc_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

type (
	intSink   = rpc.Sink[int32]
	intSource = rpc.Source[int32]
)

func newSink(t testing.TB, w *world) *intSink {
	t.Helper()
	return testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, w.Client, nil))
}

func newFixedSink(t testing.TB, w *world) *intSink {
	t.Helper()
	return testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, w.Client, &rpc.SinkOptions{Encoding: codec.Fixed}))
}

// sumUp has calls of "sum" add what comes through their source, and send the sum
// back as the only value of the stream's other half.
func sumUp(t testing.TB, srv *kernel.Server) {
	t.Helper()
	ok(t, rpc.HandleUnary(srv, "sum", func(_ context.Context, src *intSource) (*intSink, error) {
		out := rpc.MakeSink[int32](src)
		src.Go(func(ctx context.Context) error {
			sum := int32(0)
			for n, err := range src.All(ctx) {
				if err != nil {
					return err
				}
				sum += n
			}
			return out.Send(ctx, sum)
		})
		return out, nil
	}, nil))
}

func callSum(w *world, sink *intSink) (*intSource, error) {
	return rpc.Call[*intSource, *intSink](w.Ctx, w.Client, "sum", sink, nil)
}

// finish sends what sum adds up, and takes the sum.
func finish(t testing.TB, w *world, sink *intSink, src *intSource) {
	t.Helper()
	for n := range int32(5) {
		ok(t, sink.Send(w.Ctx, n))
	}
	ok(t, sink.CloseSend())
	takes(t, w, src, 10)
	endsInOrder(t, w, src)
	w.WantDone(sink.Stream())
	ok(t, sink.Err())
}

func TestSeveralSinksInOneCall(t *testing.T) {
	type names struct {
		Letters *rpc.Source[string]
		Numbers *intSource
		More    []*intSource
	}
	type request struct {
		Factor int32
		In     names
		Note   *string
	}
	type result struct {
		Sums  []*rpc.Sink[int64]
		Words *rpc.Sink[string]
	}
	type args struct {
		Factor int32
		In     struct {
			Letters *rpc.Sink[string]
			Numbers *intSink
			More    []*intSink
		}
		Note *string
	}
	type results struct {
		Sums  []*rpc.Source[int64]
		Words *rpc.Source[string]
	}
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "mix", func(_ context.Context, r request) (result, error) {
			if r.Note == nil || *r.Note != "aside" {
				return result{}, errors.New("where is the note?")
			}
			var res result
			for _, src := range append([]*intSource{r.In.Numbers}, r.In.More...) {
				out := rpc.MakeSink[int64](src)
				res.Sums = append(res.Sums, out)
				src.Go(func(ctx context.Context) error {
					sum := int64(0)
					for n, err := range src.All(ctx) {
						if err != nil {
							return err
						}
						sum += int64(n)
					}
					return out.Send(ctx, int64(r.Factor)*sum)
				})
			}
			res.Words = rpc.MakeSink[string](r.In.Letters)
			r.In.Letters.Go(func(ctx context.Context) error {
				word := ""
				for l, err := range r.In.Letters.All(ctx) {
					if err != nil {
						return err
					}
					word += l
				}
				return res.Words.Send(ctx, word)
			})
			return res, nil
		}, nil))

		note := "aside"
		a := args{Factor: 2, Note: &note}
		a.In.Letters = testkit.Must[*rpc.Sink[string]](t)(rpc.NewSink[string](w.Ctx, w.Client, nil))
		a.In.Numbers = newSink(t, w)
		a.In.More = []*intSink{newSink(t, w), newSink(t, w)}
		res := testkit.Must[results](t)(rpc.Call[results, args](w.Ctx, w.Client, "mix", a, nil))
		for i, sink := range append([]*intSink{a.In.Numbers}, a.In.More...) {
			ok(t, sink.Send(w.Ctx, int32(i)))
			ok(t, sink.Send(w.Ctx, 10))
			ok(t, sink.CloseSend())
		}
		for _, l := range []string{"a", "b", "c"} {
			ok(t, a.In.Letters.Send(w.Ctx, l))
		}
		ok(t, a.In.Letters.CloseSend())
		takes(t, w, res.Words, "abc")
		endsInOrder(t, w, res.Words)
		for i, src := range res.Sums {
			takes(t, w, src, int64(2*(i+10)))
			endsInOrder(t, w, src)
		}
	})
}

// HTTP/2 opens one stream at a time: a call passes one sink, and says so of more.
func TestACallOverGRPCPassesOneSink(t *testing.T) {
	grpc := []frame.Protocol{triple.Protocol{}}
	w := newWorld(t, loops, &kernel.ServerOptions{Protocols: grpc}, &kernel.ClientOptions{Protocols: grpc})
	ok(t, rpc.HandleUnary(w.Srv, "count", func(_ context.Context, s []*intSource) (int32, error) { return int32(len(s)), nil }, nil))
	_, err := rpc.Call[int32, []*intSink](w.Ctx, w.Client, "count", []*intSink{newSink(t, w), newSink(t, w)}, nil)
	isErr(t, "two sinks", err, kernel.ErrLimits)
	k := newSink(t, w)
	n, err := rpc.Call[int32, []*intSink](w.Ctx, w.Client, "count", []*intSink{k}, nil)
	if err != nil || n != 1 {
		t.Errorf("%d, %v for one sink", n, err)
	}
	ok(t, k.CloseSend())
	w.Loose = true
}

// A type that can hold sinks and holds none makes a call like any other.
func TestACallMayPassNoSinks(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "count", func(_ context.Context, s []*intSource) (int32, error) { return int32(len(s)), nil }, nil))
		for _, sinks := range [][]*intSink{nil, {}, {newSink(t, w), newSink(t, w)}} {
			n, err := rpc.Call[int32, []*intSink](w.Ctx, w.Client, "count", sinks, nil)
			if err != nil || int(n) != len(sinks) {
				t.Errorf("%d, %v for %d sinks", n, err, len(sinks))
			}
			for _, k := range sinks {
				ok(t, k.CloseSend())
			}
		}
		_, err := rpc.Call[int32, []*intSink](w.Ctx, w.Client, "count", []*intSink{nil}, nil)
		if err == nil || !strings.Contains(err.Error(), "call count: sink 0 of the request: a sink or source is nil") {
			t.Errorf("a nil sink: %v", err)
		}
		w.Loose = true // handlers that close no source leave their streams open
	})
}

func TestSinksThroughJSON(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		e := &rpc.HandleOptions{Encoding: codec.JSON}
		type args[S any] struct {
			Name string `json:"name"`
			In   S      `json:"in"`
		}
		ok(t, rpc.HandleUnary(w.Srv, "greet", func(_ context.Context, a args[*rpc.Source[string]]) (map[string]int, error) {
			name, err := a.In.Receive(w.Ctx)
			return map[string]int{a.Name + name: 1}, err
		}, e))
		sink := testkit.Must[*rpc.Sink[string]](t)(rpc.NewSink[string](w.Ctx, w.Client, &rpc.SinkOptions{Encoding: codec.JSON}))
		go func() {
			for errors.Is(sink.Send(w.Ctx, "Ada"), rpc.ErrSinkUnused) {
				runtime.Gosched() // the call opens the stream
			}
			_ = sink.CloseSend()
		}()
		got, err := rpc.Call[map[string]int, args[*rpc.Sink[string]]](w.Ctx, w.Client, "greet",
			args[*rpc.Sink[string]]{"dear ", sink}, &rpc.CallOptions{Encoding: codec.JSON})
		if err != nil || got["dear Ada"] != 1 {
			t.Errorf("%v, %v", got, err)
		}
		w.Loose = true
	})
}

// A sink says so at once where it can't be used.
func TestSinksThatCanNotBeUsed(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		sumUp(t, w.Srv)
		used, unused := newSink(t, w), newSink(t, w)

		isErr(t, "Send before a call", unused.Send(w.Ctx, 1), rpc.ErrSinkUnused)
		isErr(t, "TrySend before a call", unused.TrySend(1), rpc.ErrSinkUnused)
		isErr(t, "CloseSend before a call", unused.CloseSend(), rpc.ErrSinkUnused)
		isErr(t, "Err before a call", unused.Err(), rpc.ErrSinkUnused)
		if unused.Stream() != nil {
			t.Error("a sink without a call has a stream")
		}
		select {
		case unused.Out() <- 1:
			t.Error("C took a value that has nowhere to go")
		case <-unused.SendDone():
		}

		src := testkit.Must[*intSource](t)(callSum(w, used))
		_, err := callSum(w, used)
		isErr(t, "two calls", err, rpc.ErrSinkUsed)
		_, err = rpc.Call[int32, []*intSink](w.Ctx, w.Client, "sum", []*intSink{unused, used}, nil)
		isErr(t, "two calls, beside another sink", err, rpc.ErrSinkUsed)
		_, err = rpc.Call[int32, []*intSink](w.Ctx, w.Client, "sum", []*intSink{unused, unused}, nil)
		isErr(t, "twice in a call", err, rpc.ErrSinkUsed)
		_, err = rpc.Call[*intSource, *intSink](w.Ctx, testkit.Must[*kernel.Conn](t)(w.Client.Conn(w.Ctx)), "sum", unused, nil)
		isErr(t, "another connection", err, rpc.ErrSinkForeign)
		other := testkit.Must[*rpc.Sink[int32]](t)(rpc.SinkOf[int32](used.Stream(), nil))
		_, err = callSum(w, other)
		isErr(t, "the sink of a stream", err, rpc.ErrSinkUsed)
		back := rpc.MakeSink[int32](src)
		isErr(t, "the other half of a sink's source", back.Send(w.Ctx, 1), rpc.ErrSinkUsed)

		// None of that harmed the one that is in use, nor the one that is not.
		finish(t, w, used, src)
		finish(t, w, unused, testkit.Must[*intSource](t)(callSum(w, unused)))

		closed, aborted := newSink(t, w), newSink(t, w)
		ok(t, closed.Close(w.Ctx))
		_, err = callSum(w, closed)
		isErr(t, "a closed sink", err, kernel.ErrClosed)
		aborted.Abort(status.Cancelled, "changed my mind")
		_, err = callSum(w, aborted)
		isErr(t, "an aborted sink", err, kernel.ErrClosed)
		isErr(t, "Send on it", aborted.Send(w.Ctx, 1), kernel.ErrClosed)
	})
}

func TestSinksOfAConnection(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		sumUp(t, w.Srv)
		conn := testkit.Must[*kernel.Conn](t)(w.Client.Conn(w.Ctx))
		sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, conn, nil))
		_, err := callSum(w, sink)
		isErr(t, "by the client", err, rpc.ErrSinkForeign)
		finish(t, w, sink, testkit.Must[*intSource](t)(rpc.Call[*intSource, *intSink](w.Ctx, conn, "sum", sink, nil)))
		if sink.Stream().Conn() != conn {
			t.Error("the stream is on another connection")
		}
	})
}

// A call that fails fails its streams, whatever the reason.
func TestACallThatFailsFailsItsStreams(t *testing.T) {
	fails := map[string]func(ctx context.Context, src *intSource) (*intSink, error){
		"error": func(context.Context, *intSource) (*intSink, error) {
			return nil, &status.HandlerError{Code: 400, Reason: "no"}
		},
		"error after taking": func(ctx context.Context, src *intSource) (*intSink, error) {
			out := rpc.MakeSink[int32](src)
			src.Go(func(context.Context) error { panic("a failed call has no second act") })
			if _, err := src.Receive(ctx); err != nil {
				return nil, err
			}
			return out, &status.HandlerError{Code: 400, Reason: "no"}
		},
		"panic": func(context.Context, *intSource) (*intSink, error) { panic("no") },
		"exit": func(context.Context, *intSource) (*intSink, error) {
			runtime.Goexit()
			return nil, nil
		},
		"nil sink": func(context.Context, *intSource) (*intSink, error) { return nil, nil },
		"another call's sink": func(_ context.Context, src *intSource) (*intSink, error) {
			return &intSink{}, nil
		},
	}
	codes := map[string]status.Code{
		"error": 400, "error after taking": 400, "panic": status.Internal, "exit": status.Internal,
		"nil sink": status.Internal, "another call's sink": status.Internal,
	}
	j := &journal{}
	overWires(t, &kernel.ServerOptions{Logger: j.Logger()}, nil, func(t *testing.T, w *world) {
		for name, h := range fails {
			ok(t, rpc.HandleUnary(w.Srv, name, h, nil))
			sink := newSink(t, w)
			sent := make(chan error, 1)
			go func() {
				for {
					err := sink.Send(w.Ctx, 1)
					if err != nil && !errors.Is(err, rpc.ErrSinkUnused) {
						sent <- err
						return
					}
				}
			}()
			_, err := rpc.Call[*intSource, *intSink](w.Ctx, w.Client, name, sink, nil)
			wantCode(t, err, codes[name])
			if name == "nil sink" {
				if !strings.Contains(err.Error(), "result: a sink or source is nil") {
					t.Errorf("a handler without its sink: %v", err)
				}
				w.Eventually("the log to name it", func() bool { return strings.Contains(j.String(), `method="nil sink"`) }, j.String)
			}
			wantCode(t, <-sent, codes[name])
			wantCode(t, sink.Err(), codes[name])
			w.WantDone(sink.Stream())
		}
		_, err := callSum(w, newSink(t, w))
		wantCode(t, err, status.Unimplemented)
	})
}

// What a function given to Go returns is how its stream ends, and only that.
func TestGoEndsItsStreamAsItEnds(t *testing.T) {
	j := &journal{}
	overNative(t, &kernel.ServerOptions{Logger: j.Logger()}, nil, func(t *testing.T, w *world) {
		w.Loose = true
		type result struct{ A, B *intSink }
		type results struct{ A, B *intSource }
		release := make(chan struct{})
		handler := func(f func(ctx context.Context) error) {
			w.Srv.Remove("go")
			ok(t, rpc.HandleUnary(w.Srv, "go", func(_ context.Context, s []*intSource) (result, error) {
				r := result{rpc.MakeSink[int32](s[0]), rpc.MakeSink[int32](s[1])}
				s[0].Go(func(ctx context.Context) error {
					_ = r.A.Send(ctx, 1)
					return f(ctx)
				})
				s[1].Go(func(ctx context.Context) error {
					_, _ = <-release, r.B.Send(ctx, 2)
					return nil
				})
				return r, nil
			}, nil))
		}
		for _, c := range []struct {
			name string
			f    func(context.Context) error
			code status.Code
		}{
			{"nil", func(context.Context) error { return nil }, status.OK},
			{"error", func(context.Context) error { return &status.HandlerError{Code: 401} }, 401},
			{"panic", func(context.Context) error { panic("of a function") }, status.Internal},
			{"exit", func(context.Context) error { runtime.Goexit(); return nil }, status.Internal},
		} {
			handler(c.f)
			sinks := []*intSink{newSink(t, w), newSink(t, w)}
			r := testkit.Must[results](t)(rpc.Call[results, []*intSink](w.Ctx, w.Client, "go", sinks, nil))
			_, err := r.A.Receive(w.Ctx)
			for err == nil {
				_, err = r.A.Receive(w.Ctx)
			}
			if c.code == status.OK {
				endsInOrder(t, w, r.A)
			} else {
				wantCode(t, err, c.code)
			}
			release <- struct{}{} // the other stream went on
			takes(t, w, r.B, 2)
			endsInOrder(t, w, r.B)
			for _, k := range sinks {
				_ = k.CloseSend()
			}
		}
		w.Eventually("two panics, and a line of the log", func() bool {
			return strings.Contains(j.String(), "of a function") && w.Srv.Stats().Panics == 2
		}, j.String)
	})
}

// Several functions may serve one stream: it ends with the last, or the first
// error.
func TestSeveralFunctionsMayServeAStream(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		for _, fail := range []bool{false, true} {
			w.Srv.Remove("many")
			ok(t, rpc.HandleUnary(w.Srv, "many", func(_ context.Context, src *intSource) (*intSink, error) {
				out := rpc.MakeSink[int32](src)
				for i := range int32(3) {
					src.Go(func(ctx context.Context) error {
						time.Sleep(time.Duration(i) * time.Second)
						if fail && i == 1 {
							return &status.HandlerError{Code: 401}
						}
						if i == 0 {
							src.Go(func(ctx context.Context) error { // from one that runs
								time.Sleep(1500 * time.Millisecond)
								return out.Send(ctx, 100)
							})
						}
						return out.Send(ctx, i)
					})
				}
				return out, nil
			}, nil))
			sink := newSink(t, w)
			src := testkit.Must[*intSource](t)(rpc.Call[*intSource, *intSink](w.Ctx, w.Client, "many", sink, nil))
			start := time.Now()
			var got []int32
			var end error
			for n, err := range src.All(w.Ctx) {
				if end = err; err == nil {
					got = append(got, n)
				}
			}
			switch took := time.Since(start); {
			case fail:
				wantCode(t, end, 401)
				if len(got) != 1 || took != time.Second {
					t.Errorf("%v in %v", got, took)
				}
			case end != nil || fmt.Sprint(got) != "[0 1 100 2]" || took != 2*time.Second:
				t.Errorf("%v in %v, %v", got, took, end)
			}
			_ = sink.CloseSend()
			time.Sleep(3 * time.Second)
		}
	})
}

// A handler can read before it answers; what it sends waits until it has.
func TestSourcesBeforeTheAnswerAndSinksAfter(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		type result struct {
			Sum int32
			Out *intSink
		}
		type results struct {
			Sum int32
			Out *intSource
		}
		sent := make(chan time.Time, 1)
		ok(t, rpc.HandleUnary(w.Srv, "first", func(ctx context.Context, src *intSource) (result, error) {
			r := result{Out: rpc.MakeSink[int32](src)}
			isErr(t, "TrySend before the answer", r.Out.TrySend(1), kernel.ErrWouldBlock)
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			isErr(t, "Send before the answer", r.Out.Send(short, 1), context.DeadlineExceeded)
			go func() {
				err := r.Out.Send(context.Background(), 42)
				sent <- time.Now()
				if err == nil {
					err = r.Out.CloseSend()
				}
				if err != nil {
					t.Error(err)
				}
			}()
			for n, err := range src.All(ctx) {
				if err != nil {
					return r, err
				}
				r.Sum += n
			}
			time.Sleep(time.Second)
			return r, nil
		}, nil))
		sink := newSink(t, w)
		go func() {
			time.Sleep(time.Second)
			for range 10_000 { // more than there is credit for before the answer
				if err := sink.Send(w.Ctx, 1); err != nil {
					t.Error(err)
				}
			}
			_ = sink.CloseSend()
		}()
		r := testkit.Must[results](t)(rpc.Call[results, *intSink](w.Ctx, w.Client, "first", sink, nil))
		if answered := time.Now(); r.Sum != 10_000 || <-sent != answered {
			t.Errorf("sum %d", r.Sum)
		}
		takes(t, w, r.Out, 42)
		endsInOrder(t, w, r.Out)
	})
}

// A sink that is ended before the answer is ended behind it.
func TestCloseSendBeforeTheAnswer(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "brief", func(_ context.Context, src *intSource) (*intSink, error) {
			out := rpc.MakeSink[int32](src)
			ok(t, out.CloseSend())
			isErr(t, "Send after CloseSend", out.Send(context.Background(), 1), kernel.ErrSendClosed)
			src.CloseReceive(status.OK)
			second := rpc.MakeSink[int32](src)
			isErr(t, "a second half", second.Send(context.Background(), 1), rpc.ErrSinkUsed)
			isErr(t, "its Err", second.Err(), rpc.ErrSinkUsed)
			return out, nil
		}, nil))
		sink := newSink(t, w)
		src := testkit.Must[*intSource](t)(rpc.Call[*intSource, *intSink](w.Ctx, w.Client, "brief", sink, nil))
		endsInOrder(t, w, src)
		w.WantDone(sink.Stream())
		isErr(t, "Send to a handler that reads no more", sink.Send(w.Ctx, 1), kernel.ErrStopped)
	})
}

// Without a sink in the result there is no way back, and nobody waits for one.
func TestAStreamWithoutAWayBack(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		sum := make(chan int32, 1)
		ok(t, rpc.HandleUnary(w.Srv, "oneway", func(_ context.Context, src *intSource) (struct{}, error) {
			forgotten := rpc.MakeSink[int32](src)
			src.Go(func(ctx context.Context) error {
				isErr(t, "a sink that was not returned", forgotten.Send(ctx, 1), kernel.ErrSendClosed)
				n := int32(0)
				for v, err := range src.All(ctx) {
					if err != nil {
						return err
					}
					n += v
				}
				sum <- n
				return nil
			})
			return struct{}{}, nil
		}, nil))
		sink := newSink(t, w)
		_, err := rpc.Call[struct{}, *intSink](w.Ctx, w.Client, "oneway", sink, nil)
		ok(t, err)
		for range 100 {
			ok(t, sink.Send(w.Ctx, 1))
		}
		ok(t, sink.CloseSend())
		if n := <-sum; n != 100 {
			t.Errorf("%d of 100 arrived", n)
		}
		w.WantDone(sink.Stream())
		ok(t, sink.Err())
	})
}

// What a peer says of its streams is checked: the handler hears of none of these.
func TestRequestsThatNameTheirStreamsWrongly(t *testing.T) {
	id := func(ids ...uint64) pool.Message {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(ids)))
		for _, id := range ids {
			b = binary.LittleEndian.AppendUint64(b, id)
		}
		return pool.Copy(b)
	}
	server, _, _ := by(codec.Fixed)
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "two", func(_ context.Context, s []*intSource) (int32, error) {
			t.Errorf("the handler got %d sources", len(s))
			return 0, nil
		}, server))
		for _, c := range []struct {
			req     pool.Message
			streams int
			reason  string
		}{
			{id(0, 0), 2, "names number 0"},
			{id(0, 2), 2, "names number 2"},
			{id(0, 1<<63), 2, "names number 9223372036854775808"},
			{id(1), 2, ": 1 of the streams that it opens have no place in it"},
			{id(), 2, ": 2 of the streams"},
			{pool.New(0), 1, "byte 0: cannot decode []*rpc.Source[int32]: 4 bytes are due here"},
			{text("%s", "\x01\x00\x00\x00123"), 1, "a length of 1, and 3 bytes are left"},
		} {
			ss, err := w.Client.OpenN(w.Ctx, "two", &kernel.OpenOptions{Request: c.req}, make([]kernel.StreamOptions, c.streams)...)
			ok(t, err)
			for _, s := range ss {
				_, _, err := s.Accepted(w.Ctx)
				se := wantCode(t, err, status.InvalidArgument)
				if s == ss[0] && !strings.Contains(se.Reason, c.reason) {
					t.Errorf("reason %q, want %q", se.Reason, c.reason)
				}
			}
		}
	})
}

func TestResultsThatNameTheirStreamsWrongly(t *testing.T) {
	_, call, _ := by(codec.Fixed)
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		var result []byte
		w.Srv.HandleOffer("lie", func(_ context.Context, o *kernel.Offer) error {
			testkit.RequestOf(t, o).Release()
			_, err := o.AcceptAll(pool.Copy(result), nil)
			return err
		})
		for _, c := range []struct {
			ids  []uint64
			want string
		}{
			{[]uint64{1}, "the result names stream 1"},
			{[]uint64{0, 0}, "the result names stream 0"},
			{nil, "4 bytes are due here"},
		} {
			result = nil
			if c.ids != nil {
				result = binary.LittleEndian.AppendUint32(nil, uint32(len(c.ids)))
				for _, id := range c.ids {
					result = binary.LittleEndian.AppendUint64(result, id)
				}
			}
			sink := newFixedSink(t, w)
			_, err := rpc.Call[[]*intSource, *intSink](w.Ctx, w.Client, "lie", sink, call)
			var de *codec.DecodeError
			if !errors.As(err, &de) || de.Message != 0 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %v", c.ids, err)
			}
			wantCode(t, sink.Err(), status.InvalidArgument)
		}
	})
}

// The call's time is the call's alone; a sink's context is its stream's.
func TestWhatBoundsACallAndWhatItsStreams(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		sumUp(t, w.Srv)
		ended := make(chan error, 1)
		ok(t, rpc.HandleUnary(w.Srv, "slow", func(ctx context.Context, _ *intSource) (struct{}, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return struct{}{}, ctx.Err()
		}, nil))

		slow := newSink(t, w)
		start := time.Now()
		_, err := rpc.Call[struct{}, *intSink](w.Ctx, w.Client, "slow", slow, &rpc.CallOptions{CallOptions: kernel.CallOptions{Timeout: time.Minute}})
		wantCode(t, err, status.DeadlineExceeded)
		if time.Since(start) != time.Minute {
			t.Errorf("the call took %v", time.Since(start))
		}
		wantCode(t, slow.Send(w.Ctx, 1), status.DeadlineExceeded)
		<-ended

		ctx, cancel := context.WithCancel(w.Ctx)
		slow = newSink(t, w)
		time.AfterFunc(time.Second, cancel)
		_, err = rpc.Call[struct{}, *intSink](ctx, w.Client, "slow", slow, nil)
		wantCode(t, err, status.Cancelled)
		wantCode(t, slow.Err(), status.Cancelled)
		<-ended

		// The streams live on when the call's time is over.
		ctx, cancel = context.WithTimeout(w.Ctx, time.Second)
		defer cancel()
		sink := newSink(t, w)
		src := testkit.Must[*intSource](t)(rpc.Call[*intSource, *intSink](ctx, w.Client, "sum", sink, nil))
		time.Sleep(time.Hour)
		finish(t, w, sink, src)

		// Not beyond what they were made with.
		life, cancel := context.WithTimeout(w.Ctx, time.Minute)
		defer cancel()
		sink = testkit.Must[*intSink](t)(rpc.NewSink[int32](life, w.Client, nil))
		src = testkit.Must[*intSource](t)(callSum(w, sink))
		start = time.Now()
		_, err = src.Receive(w.Ctx)
		wantCode(t, err, status.DeadlineExceeded)
		if time.Since(start) != time.Minute {
			t.Errorf("the stream lived for %v", time.Since(start))
		}
		synctest.Wait()
	})
}

// Sinks that nobody passes on cost nothing and keep nothing from ending.
func TestASinkThatIsNeverPassedOnGoesWithItsClient(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		var sinks []*intSink
		for range 100 {
			sinks = append(sinks, newSink(t, w))
		}
		for _, c := range append(w.Client.Conns(), w.Srv.Conns()...) {
			if c.Streams() != 0 {
				t.Errorf("%d streams for sinks that nobody uses", c.Streams())
			}
		}
		ok(t, w.Client.Close())
		for _, k := range sinks {
			_, err := callSum(w, k)
			isErr(t, "a call after Close", err, kernel.ErrClosed)
			isErr(t, "and what it leaves", k.Err(), kernel.ErrClosed)
		}
	})
}

// A client that goes takes its streams along, and its handlers are told.
func TestPassedStreamsEndWithTheirClient(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ended := make(chan error, 1)
		ok(t, rpc.HandleUnary(w.Srv, "wait", func(_ context.Context, src *intSource) (*intSink, error) {
			out := rpc.MakeSink[int32](src)
			src.Go(func(ctx context.Context) error {
				_, err := src.Receive(ctx)
				ended <- err
				return err
			})
			return out, nil
		}, nil))
		sink := newSink(t, w)
		src := testkit.Must[*intSource](t)(rpc.Call[*intSource, *intSink](w.Ctx, w.Client, "wait", sink, nil))
		ok(t, w.Client.Close())
		wantCode(t, <-ended, status.ConnectionLost)
		_, err := src.Receive(w.Ctx)
		wantCode(t, err, status.ConnectionLost)
		wantCode(t, sink.Send(w.Ctx, 1), status.ConnectionLost)
		wantCode(t, sink.Err(), status.ConnectionLost)
	})
}

// Sinks are found behind pointers and in optional fields; where a call does not
// look for them it says so, and does not send something else in their place.
func TestSinksBehindPointers(t *testing.T) {
	type args[S any] struct {
		Name string
		More *struct{ In S }
	}
	type deep[S any] struct{ By map[string]S }
	e := &rpc.HandleOptions{Encoding: codec.JSON}
	opts := &rpc.CallOptions{Encoding: codec.JSON}
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		handler := func(_ context.Context, a args[*intSource]) (bool, error) {
			if a.More != nil {
				a.More.In.CloseReceive(status.OK)
			}
			return a.More != nil, nil
		}
		fixed, fixedCall, _ := by(codec.Fixed)
		ok(t, rpc.HandleUnary(w.Srv, "json", handler, e))
		ok(t, rpc.HandleUnary(w.Srv, "fixed", handler, fixed))
		for method, o := range map[string]*rpc.CallOptions{"json": opts, "fixed": fixedCall} {
			sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, w.Client, &rpc.SinkOptions{Encoding: o.Encoding}))
			a := args[*intSink]{Name: "x", More: &struct{ In *intSink }{sink}}
			there, err := rpc.Call[bool, args[*intSink]](w.Ctx, w.Client, method, a, o)
			if err != nil || !there {
				t.Errorf("%s: %v, %v", method, there, err)
			}
			<-sink.SendDone() // the handler wants nothing
			w.WantDone(sink.Stream())
			a.More = nil
			if there, err = rpc.Call[bool, args[*intSink]](w.Ctx, w.Client, method, a, o); err != nil || there {
				t.Errorf("%s without one: %v, %v", method, there, err)
			}
		}
		sink := newSink(t, w)
		_, err := rpc.Call[bool, deep[*intSink]](w.Ctx, w.Client, "json", deep[*intSink]{map[string]*intSink{"a": sink}}, opts)
		isErr(t, "in a map", err, rpc.ErrSinkUnused)
	})
}
