package rpc

import (
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// A call that takes a sink and then is not made gives it back: what was asked of Out while the
// call had it is kept for the next one, or Out starts anew.
func TestOutAfterACallThatWasNotMade(t *testing.T) {
	for name, between := range map[string]func(t *testing.T, k *Sink[pool.Message], out chan<- pool.Message) chan<- pool.Message{
		"the next call begins at once": func(t *testing.T, k *Sink[pool.Message], out chan<- pool.Message) chan<- pool.Message {
			k.cmu.Lock() // resetOut waits until then
			k.unclaim()
			err := k.claim(k.caller)
			k.cmu.Unlock()
			synctest.Wait()
			if again := k.Out(); err != nil || again != out {
				t.Errorf("%v; Out is the one before: %v", err, again == out)
			}
			return out
		},
		"the next call begins later": func(t *testing.T, k *Sink[pool.Message], out chan<- pool.Message) chan<- pool.Message {
			k.unclaim()
			synctest.Wait()
			err := k.claim(k.caller)
			again := k.Out()
			if err != nil || again == out {
				t.Errorf("%v; Out is the one before: %v", err, again == out)
			}
			return again
		},
		"CloseSend was called": func(t *testing.T, k *Sink[pool.Message], _ chan<- pool.Message) chan<- pool.Message {
			err := k.CloseSend()
			k.unclaim()
			synctest.Wait()
			if err == nil {
				err = k.claim(k.caller)
			}
			if err != nil {
				t.Error(err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, client := kerneltest.Start(t, nil, nil)
				a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{})
				k, err := NewSink[pool.Message](t.Context(), client, nil)
				if err == nil {
					err = k.claim(client)
				}
				if err != nil {
					t.Fatal(err)
				}
				out, in := between(t, k, k.Out()), b.In()
				k.bind(a)
				synctest.Wait()
				if out != nil {
					select {
					case out <- pool.Copy([]byte("x")):
					default:
						t.Fatal("nothing takes from Out")
					}
					synctest.Wait()
				}
				select {
				case m, ok := <-in:
					m.Release()
					if ok != (out != nil) {
						t.Errorf("the peer gets a message: %v", ok)
					}
				default:
					t.Error("the peer gets nothing")
				}
			})
		})
	}
}
