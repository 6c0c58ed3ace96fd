package kernel

import (
	"log/slog"
	"testing"
	"testing/synctest"
)

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A writer of keys that is late, and is not waited for any more, writes what it was given. Who has
// called may have used the memory again.
func TestALateKeyLogWriterHasItsOwnBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(&ServerOptions{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		release, written := make(chan struct{}), ""
		w := soundWriter{&srv.endpoint, writerFunc(func(p []byte) (int, error) {
			<-release
			written = string(p)
			return len(p), nil
		})}
		p := []byte("these keys")
		if _, err := w.Write(p); err == nil {
			t.Error("a write that does not return was waited for")
		}
		copy(p, "others now")
		close(release)
		synctest.Wait()
		if written != "these keys" {
			t.Errorf("written: %q", written)
		}
	})
}
