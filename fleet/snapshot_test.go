package fleet_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/kernel"
)

func TestSnapshotSaysWhatIsSo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{Balancer: fleet.Weighted})
		if i := c.Snapshot(); i.Target != "test://" || i.Balancer != fleet.Weighted || i.Sets != 0 || len(i.Endpoints) != 0 || i.SetAge != 0 {
			t.Errorf("%+v", i)
		}
		w.sets <- fleet.Set{Endpoints: []fleet.Endpoint{{Addr: "b:1", Weight: 3, Tag: "blue"}, {Addr: "a:1"}, {Addr: "down:1"}}, Err: errors.New("one\nis missing")}
		w.warm(c, time.Second, "a:1", "b:1")
		s := w.open(c)
		time.Sleep(time.Minute)
		w.warm(c, time.Second, "a:1", "b:1")
		i := c.Snapshot()
		if i.Sets != 1 || i.SetAge < time.Minute || !strings.Contains(i.Err, "is missing") || strings.Contains(i.Err, "\n") || i.Failures == 0 {
			t.Errorf("%+v", i)
		}
		streams := 0
		for n, addr := range []string{"a:1", "b:1", "down:1"} {
			e := i.Endpoints[n]
			streams += e.Streams
			switch {
			case e.Addr != addr:
				t.Errorf("%s is at %d", e.Addr, n)
			case addr == "down:1":
				if e.State != kernel.StateTransientFailure || e.Left < 0 || !strings.Contains(e.Err, errNobody.Error()) || e.Conns != 0 {
					t.Errorf("%+v", e)
				}
			case e.State != kernel.StateReady || e.Conns != 1 || e.Opens == 0 || e.Err != "":
				t.Errorf("%+v", e)
			}
		}
		if e := i.Endpoints[1]; e.Weight != 3 || e.Tag != "blue" {
			t.Errorf("%+v", e)
		}
		if streams != 1 || len(c.Conns()) != 2 {
			t.Errorf("%d streams, %d connections", streams, len(c.Conns()))
		}
		w.register("c:1")
		time.Sleep(time.Second)
		states := map[string]kernel.State{}
		for _, e := range c.Snapshot().Endpoints {
			states[e.Addr] = e.State
		}
		if len(states) != 2 || states["c:1"] != kernel.StateIdle {
			t.Errorf("%v", states)
		}
		for addr, state := range states {
			if addr != "c:1" && state != fleet.StateDraining {
				t.Errorf("%v", states)
			}
		}
		end(s)
		_ = c.Close()
		for _, e := range c.Snapshot().Endpoints {
			if e.State != kernel.StateShutdown {
				t.Errorf("%+v", e)
			}
		}
	}, "a:1", "b:1")
}
