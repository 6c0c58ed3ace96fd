package admin

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Listen listens on "host:port". Without a host, as in ":9091", it listens on 127.0.0.1 and
// can be reached from this machine alone; "0.0.0.0:9091" says otherwise. Over a network use
// TLS, tls.NewListener, for the token would be read on its way.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	if host, port, err := net.SplitHostPort(addr); err == nil && host == "" {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", addr)
}

// endTime is how long answers may take when the serving is over.
const endTime = 5 * time.Second

// Serve serves the pages to who connects by ln, until ctx ends; then it returns nil, and
// nothing of it runs any more, except for answers that have taken more than 5 s.
// It closes ln. If ln fails, Serve returns its error.
func (h *Handler) Serve(ctx context.Context, ln net.Listener) error {
	alive, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: h, BaseContext: func(net.Listener) context.Context { return alive },
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		cancel()
		_ = srv.Close() // the connections that are left
		return err
	case <-ctx.Done():
	}
	limit, done := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer done()
	if srv.Shutdown(limit) != nil {
		_ = srv.Close()
	}
	<-served
	return nil
}
