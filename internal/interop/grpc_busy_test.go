package interop

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// Clients of HTTP/2 that grant all that they are sent, frame by frame, for the stream and for
// the connection: Mint does, a library of Elixir. However short the messages are,
// and also where the grants come behind the stream's end, that ends no connection.
func TestHTTP2PeersThatGrantEachFrame(t *testing.T) {
	for _, p := range []struct {
		name     string
		streams  int
		messages int           // of no bytes, each in a frame of its own,
		each     time.Duration // with so much time between them
		late     bool          // the client grants when it has read everything
	}{
		{"a long feed", 1, 5000, time.Millisecond, false},
		{"calls", 3000, 1, 0, false},
		{"feeds that end before their grants come", 30, 200, time.Millisecond, true},
	} {
		t.Run(p.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tg := newTarget(t, true, kernel.ServerOptions{Limits: targetLimits(), Protocols: []frame.Protocol{triple.Protocol{}, native.Protocol{}}})
				tg.Srv.Handle("feed", func(ctx context.Context, s *kernel.Stream) error {
					for range p.messages {
						m := pool.New(0)
						if err := s.Send(ctx, m); err != nil {
							m.Release()
							return err
						}
						time.Sleep(p.each)
					}
					return nil
				})
				tg.ConnectHonest()
				r := tg.speakHTTP2()
				if r.grants = grantsBoth; p.late {
					r.grants = grantsNone
				}
				go r.listen()
				for range p.streams {
					id, open := r.request("feed")
					_ = r.write(open, h2(h2Data, h2EndStream, id, nil))
					time.Sleep(time.Duration(p.messages) * (p.each + time.Millisecond))
					synctest.Wait()
					if p.late {
						for range p.messages {
							_ = r.write(h2Grant(id, 5), h2Grant(0, 5))
						}
						synctest.Wait()
					}
					if !r.wasAnswered(id, 0) || r.over() != nil {
						t.Fatalf("stream %d: %s", id, r.tail())
					}
				}
				r.echoes()
				tg.Unharmed()
			})
		})
	}
}
