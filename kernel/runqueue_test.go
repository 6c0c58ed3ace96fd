package kernel

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// resting has a goroutine wait for work like one whose handler has returned, and
// returns where it says what it got; it is closed when it has ended.
func resting(q *runQueue, t *timers.Queue) <-chan job {
	got := make(chan job, 1)
	q.mu.Lock()
	q.n++
	q.mu.Unlock()
	go func() {
		defer close(got)
		if j, ok := q.next(t, job{}); ok {
			got <- j
		}
	}()
	synctest.Wait()
	return got
}

func TestAGoroutineServesTheNextHandlerToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, timers := &runQueue{most: 10}, &timers.Queue{}
		got := resting(q, timers)
		o := &Offer{}
		if q.enter(job{o: o}) {
			t.Error("another goroutine is wanted while one waits")
		}
		if j := <-got; j.o != o {
			t.Error("the one that waited did not get the offer")
		}
		if !q.enter(job{o: o}) {
			t.Error("nobody is left to serve the second offer")
		}
		q.stop()
	})
}

func TestGoroutinesWithoutHandlersEnd(t *testing.T) {
	for name, end := range map[string]func(q *runQueue){
		"when none comes for a while": func(*runQueue) { time.Sleep(2 * idleCheck) },
		"with their connection":       (*runQueue).stop,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, timers := &runQueue{most: 2 * mostIdle}, &timers.Queue{}
				var all []<-chan job
				for range mostIdle + 5 {
					all = append(all, resting(q, timers))
				}
				waiting := q.idle
				end(q)
				synctest.Wait()
				for _, got := range all {
					if j, ok := <-got; ok {
						t.Errorf("one got %v", j)
					}
				}
				if waiting != mostIdle {
					t.Errorf("%d waited, want at most, and here exactly, %d", waiting, mostIdle)
				}
				if q.stop(); timers.Len() != 0 {
					t.Errorf("%d timers are left", timers.Len())
				}
			})
		})
	}
}
