package tripletest

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/interop/check"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// TestMain fails if a goroutine is left of anything.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, kerneltest.LeakOptions()...) }

// start starts our server, and returns its address.
func start(t *testing.T, compression pool.Compression) string {
	t.Helper()
	var hs kernel.Handlers
	if err := Register(&hs); err != nil {
		t.Fatal(err)
	}
	srv, err := Config().Start(t.Context(), &hs, &kernel.ServerOptions{
		Stream: kernel.StreamOptions{Compression: compression}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv.Addrs()[0].String()
}

// dial returns our client of a server.
func dial(t *testing.T, addr string) *kernel.Client {
	t.Helper()
	c, err := kernel.Dial(t.Context(), "tri://"+addr, &kernel.ClientOptions{
		Protocols: []frame.Protocol{triple.Protocol{}}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// The checks hold between our client and our server, so what they say of others is theirs.
func TestCases(t *testing.T) {
	for _, compression := range []pool.Compression{pool.NoCompression, pool.Gzip} {
		if err := check.Run(t.Context(), dial(t, start(t, compression)), Cases(), &lines{t}); err != nil {
			t.Error(err)
		}
	}
}

// lines logs what is written to it.
type lines struct{ t *testing.T }

func (l *lines) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// Triple's plain form for unary calls is not carried: it is refused over HTTP/2 and over HTTP/1.
func TestThePlainFormIsRefused(t *testing.T) {
	addr := start(t, pool.NoCompression)
	for name, tc := range map[string]struct {
		protocols func(*http.Protocols)
		want      int
	}{
		"HTTP/2": {func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, http.StatusUnsupportedMediaType},
		"HTTP/1": {func(p *http.Protocols) { p.SetHTTP1(true) }, http.StatusHTTPVersionNotSupported},
	} {
		for _, contentType := range []string{"application/json", "application/proto"} {
			t.Run(name+" "+contentType, func(t *testing.T) {
				tr := &http.Transport{Protocols: new(http.Protocols)}
				tc.protocols(tr.Protocols)
				defer tr.CloseIdleConnections()
				resp, err := (&http.Client{Transport: tr}).Post("http://"+addr+"/"+greeter+"/greet", contentType, strings.NewReader(`{"name":"Ada"}`))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Error(err)
				}
				if resp.StatusCode != tc.want {
					t.Errorf("the status is %s, not %d", resp.Status, tc.want)
				}
			})
		}
	}
}

// listen listens for what stands for another's server.
func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}
