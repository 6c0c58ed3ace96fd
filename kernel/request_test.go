package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The ways to come to a request, each with the ways to answer a call that has one: the
// reply is a message of the stream, or travels with the acceptance.
var requestHandlers = map[string]func(hs *kernel.Server, serve func(ctx context.Context, o *kernel.Offer, s *kernel.Stream) error){
	"Handle": func(srv *kernel.Server, serve func(context.Context, *kernel.Offer, *kernel.Stream) error) {
		srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error { return serve(ctx, nil, s) })
	},
	"Handle, its offer": func(srv *kernel.Server, serve func(context.Context, *kernel.Offer, *kernel.Stream) error) {
		srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error { return serve(ctx, s.Offer(), nil) })
	},
	"HandleOffer": func(srv *kernel.Server, serve func(context.Context, *kernel.Offer, *kernel.Stream) error) {
		srv.HandleOffer("m", func(ctx context.Context, o *kernel.Offer) error { return serve(ctx, o, nil) })
	},
	"HandleOffer, accepted before": func(srv *kernel.Server, serve func(context.Context, *kernel.Offer, *kernel.Stream) error) {
		srv.HandleOffer("m", func(ctx context.Context, o *kernel.Offer) error {
			s, err := o.Accept(pool.Message{}, nil)
			if err == nil {
				err = serve(ctx, nil, s)
				s.Finish(err)
			}
			return err
		})
	},
	"Offers": func(srv *kernel.Server, serve func(context.Context, *kernel.Offer, *kernel.Stream) error) {
		offers := srv.Offers()
		go func() {
			for {
				select {
				case o := <-offers:
					_ = serve(o.Stream(0).Context(), o, nil)
				case <-srv.Draining():
					return
				}
			}
		}()
	},
}

// requestOf takes the request of either, and checks it.
func requestOf(ctx context.Context, t *testing.T, o *kernel.Offer, s *kernel.Stream, want []byte) (pool.Message, error) {
	ask := s.Request
	if o != nil {
		ask = o.Request
	}
	m, err := ask(ctx)
	if err == nil && !bytes.Equal(m.Bytes(), want) {
		t.Errorf("a request of %d bytes, want %d", m.Len(), len(want))
	}
	return m, err
}

// A call's request is found by Request in every kind of handler, of any length, and no
// second time. The header can be set behind it, and the reply may travel with the
// acceptance.
func TestTheRequestOfACall(t *testing.T) {
	for name, register := range requestHandlers {
		t.Run(name, func(t *testing.T) {
			overAll(t, nil, nil, func(t *testing.T, w *world) {
				var want []byte
				register(w.Srv, func(ctx context.Context, o *kernel.Offer, s *kernel.Stream) error {
					m, err := requestOf(ctx, t, o, s, want)
					if err != nil {
						return err
					}
					header := metadata.MD{{Key: "length", Value: decimal(m.Len())}}
					switch {
					case o == nil && name == "Handle":
						ok(t, s.SetHeader(header))
					case o != nil:
						ok(t, o.SetHeader(header))
						reply := m
						if len(want) == 0 { // which can be told from none
							m.Release()
							reply = pool.New(0)
						}
						if s, err = o.Accept(reply, nil); err != nil {
							return err
						}
						if more, err := s.Request(ctx); err != io.EOF {
							t.Errorf("behind the request came %d bytes, %v", more.Len(), err)
						}
						s.Finish(nil)
						return nil
					}
					if more, err := s.Receive(ctx); err != io.EOF {
						t.Errorf("behind the request came %d bytes, %v", more.Len(), err)
					}
					return s.Send(ctx, m)
				})
				for _, n := range []int{0, 1, 16 << 10, 100_000, 3 << 20} {
					want = bytes.Repeat([]byte{7}, n)
					var header metadata.MD
					reply, err := w.Client.Call(w.Ctx, "m", sized(n, 7), &kernel.CallOptions{Header: &header})
					if err != nil || !bytes.Equal(reply.Bytes(), want) {
						t.Fatalf("a reply of %d bytes, want %d: %v", reply.Len(), n, err)
					}
					reply.Release()
					if name != "HandleOffer, accepted before" && header.Get("length") != decimal(n) {
						t.Errorf("header %v", header)
					}
				}
			})
		})
	}
}

// The request of an open is found by Request, before what is sent behind it, and never by
// Receive.
func TestTheRequestOfAnOpen(t *testing.T) {
	for name, register := range requestHandlers {
		t.Run(name, func(t *testing.T) {
			overAll(t, nil, nil, func(t *testing.T, w *world) {
				var want []byte
				register(w.Srv, func(ctx context.Context, o *kernel.Offer, s *kernel.Stream) error {
					late := len(want) == 2 // the stream is read first
					var m pool.Message
					var err error
					if !late {
						if m, err = requestOf(ctx, t, o, s, want); err != nil {
							return err
						}
					}
					if s == nil {
						if s, err = o.Accept(pool.Message{}, nil); err != nil {
							return err
						}
						defer s.Finish(nil)
					}
					w.Want(s, "first")
					if late {
						if m, err = requestOf(ctx, t, nil, s, want); err != nil {
							return err
						}
					}
					w.Want(s, "second")
					return s.Send(ctx, m)
				})
				for _, n := range []int{0, 1, 2, 16 << 10, 100_000} {
					want = bytes.Repeat([]byte{7}, n)
					s, err := w.Client.Open(w.Ctx, "m", &kernel.OpenOptions{Request: sized(n, 7)})
					if err != nil {
						t.Fatal(err)
					}
					w.Send(s, "first")
					w.Send(s, "second")
					w.Want(s, "%s", want)
					w.WantEOF(s)
					_ = s.Close(w.Ctx)
				}
			})
		})
	}
}

// Without one the request is the first message, as it is where opens carry none.
func TestTheRequestOfAnOpenWithoutOne(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error {
			testkit.RequestOf(t, s).Release()
			w.Want(s, "second")
			return nil
		})
		s := w.Open("m")
		if w.caps.Early {
			w.Send(s, "first")
		} // else the open carries an empty one
		w.Send(s, "second")
		w.WantEOF(s)
		_ = s.Close(w.Ctx)
	})
}

// A request that nobody asks for goes with the stream.
func TestRequestsThatNobodyAsksFor(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("returns", func(context.Context, *kernel.Stream) error { return nil })
		w.Srv.Handle("refuses", func(context.Context, *kernel.Stream) error { return errors.New("no") })
		w.Srv.HandleOffer("rejects", func(_ context.Context, o *kernel.Offer) error { o.Reject(errors.New("no")); return nil })
		w.Srv.HandleOffer("closes", func(ctx context.Context, o *kernel.Offer) error {
			s, err := o.Accept(pool.Message{}, nil)
			if err == nil {
				err = s.Close(ctx)
			}
			return err
		})
		for _, method := range []string{"returns", "refuses", "rejects", "closes"} {
			for _, n := range []int{1, 100_000} {
				s, err := w.Client.Open(w.Ctx, method, &kernel.OpenOptions{Request: sized(n, 7)})
				if err != nil {
					t.Fatal(err)
				}
				drain(s)
				_ = s.Close(w.Ctx)
			}
		}
	})
}

// A second reply is one too many, also behind one that came with the acceptance.
func TestTwoRepliesToACall(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.HandleOffer("m", func(ctx context.Context, o *kernel.Offer) error {
			s, err := o.Accept(text("one"), nil)
			if err != nil {
				return err
			}
			_ = s.Send(ctx, text("two"))
			s.Finish(nil)
			return nil
		})
		req := text("x")
		reply, err := w.Client.Call(w.Ctx, "m", req, nil)
		if err == nil {
			t.Errorf("a reply: %q", reply.Bytes())
		}
		req.Release()
	})
}

// A peer whose HELLO does not say that it takes metadata in a refusal gets none, and the log
// says what is missing.
func TestRefusalsWithoutMetadata(t *testing.T) {
	for _, takes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			tg := newTarget(t, true, kernel.ServerOptions{})
			tg.Srv.Handle("m", func(context.Context, *kernel.Stream) error {
				return &status.HandlerError{Code: status.NotFound, Details: md(100)}
			})
			own := hello()
			own.RefusalMetadata = takes
			r := tg.attack(own)
			r.open("m")
			synctest.Wait()
			h, ok := r.find(frame.Reject, 1)
			if !ok || h.code != status.NotFound || (h.fields > 0) != takes {
				t.Errorf("takes %t: %+v", takes, h)
			}
			if logged := strings.Contains(tg.Log.String(), "details can't be sent"); logged == takes {
				t.Errorf("takes %t: logged: %s", takes, tg.Log.String())
			}
		})
	}
}
