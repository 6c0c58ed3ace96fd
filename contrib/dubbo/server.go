package dubbo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
)

// A Server serves a Config. Its methods may be called from any goroutine.
type Server struct {
	ports []*port
	urls  []string
	done  chan struct{}
	err   error // of run; read when done is closed
}

// A port is one protocol of a Config: a listener, and who serves it.
type port struct {
	Protocol
	srv *kernel.Server
	ln  net.Listener
}

// Start is Load and Config.Start without options.
func Start(ctx context.Context, hs *kernel.Handlers) (*Server, error) {
	c, err := Load()
	if err != nil {
		return nil, err
	}
	return c.Start(ctx, hs, nil)
}

// Start listens on the addresses of the protocols, serves hs there, and logs the URL of each
// service. It returns when it listens everywhere. When ctx ends the server drains, as
// kernel.Server.Serve says; what hs has may be changed meanwhile.
//
// Each protocol has a kernel.Server of its own with opts; nil are the defaults. hs takes the
// place of opts.Handlers. To opts.Protocols triple.Protocol{} is added if no gRPC is among them.
// opts.Authorize is asked about calls whose version and group are served. opts.Logger logs too what
// Start has to say. opts.Limits are those of each protocol; only the default of Limits.Memory is
// shared out.
//
// Errors: a *ConfigError, kernel.ErrLimits, or a status.ConnError whose Op is "listen".
func (c *Config) Start(ctx context.Context, hs *kernel.Handlers, opts *kernel.ServerOptions) (*Server, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	var o kernel.ServerOptions
	if opts != nil {
		o = *opts
	}
	o.Handlers, o.Protocols = hs, withTriple(o.Protocols)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	for _, w := range c.Warnings {
		o.Logger.Warn("dubbo: "+w.Text, "key", w.Path, "line", w.Line)
	}
	protocols := c.protocols()
	shareMemory(&o.Limits, len(protocols))
	s := &Server{done: make(chan struct{})}
	for _, p := range protocols {
		if err := s.listen(ctx, p, c.Services, o); err != nil {
			for _, p := range s.ports {
				_ = p.ln.Close()
			}
			return nil, err
		}
	}
	s.logURLs(c.Services, o.Logger)
	go s.run(ctx)
	return s, nil
}

// protocols returns the protocols, or the default one.
func (c *Config) protocols() []Protocol {
	if len(c.Protocols) == 0 {
		return []Protocol{{ID: "triple", IP: DefaultIP, Port: DefaultPort}}
	}
	return c.Protocols
}

// withTriple returns ps with Triple.
func withTriple(ps []frame.Protocol) []frame.Protocol {
	for _, p := range ps {
		if p.Name() == triple.Name {
			return ps
		}
	}
	return append(slices.Clone(ps), triple.Protocol{})
}

// shareMemory gives each of n servers its part of the process's memory: a server's default is
// for one that is alone.
func shareMemory(l *kernel.Limits, n int) {
	const percent = 70 // as that of kernel.Limits.Memory
	if most := debug.SetMemoryLimit(-1); l.Memory == 0 && n > 1 && most < math.MaxInt64 {
		l.Memory = max(int(most/100)*percent/n, 1)
	}
}

// listen adds the port of a protocol.
func (s *Server) listen(ctx context.Context, p Protocol, services []Service, o kernel.ServerOptions) error {
	r := registryOf(services, p.serves)
	if r.checks() {
		o.Authorize = both(r.check, o.Authorize)
	}
	srv, err := kernel.NewServer(&o)
	if err != nil {
		return err
	}
	ln, err := kernel.Listen(ctx, net.JoinHostPort(p.IP, strconv.Itoa(p.Port)))
	if err != nil {
		return fmt.Errorf("dubbo: dubbo.protocols.%s: %w", p.ID, err)
	}
	s.ports = append(s.ports, &port{p, srv, ln})
	return nil
}

// serves reports whether a protocol serves a service.
func (p Protocol) serves(s *Service) bool {
	return len(s.Protocols) == 0 || slices.Contains(s.Protocols, p.ID)
}

type authorizer = func(ctx context.Context, id kernel.Identity, method string, md metadata.MD) error

// both asks two, the second only if the first agrees. The second may be nil.
func both(first, second authorizer) authorizer {
	if second == nil {
		return first
	}
	return func(ctx context.Context, id kernel.Identity, method string, md metadata.MD) error {
		if err := first(ctx, id, method, md); err != nil {
			return err
		}
		return second(ctx, id, method, md)
	}
}

// logURLs logs where each service is served, and a protocol that serves none by name.
func (s *Server) logURLs(services []Service, logger *slog.Logger) {
	for _, p := range s.ports {
		base := "triple://" + p.hostPort()
		named := false
		for i := range services {
			if sv := &services[i]; p.serves(sv) {
				named = true
				s.urls = append(s.urls, base+"/"+sv.Interface)
				logger.Info("dubbo: serving "+base+"/"+sv.Interface, "version", sv.Version, "group", sv.Group)
			}
		}
		if !named {
			s.urls = append(s.urls, base)
			logger.Info("dubbo: serving " + base)
		}
	}
}

// hostPort is where a port listens, by the address that its protocol names. The listener's own
// would be "[::]" for "0.0.0.0".
func (p *port) hostPort() string {
	host, number, err := net.SplitHostPort(p.ln.Addr().String())
	switch {
	case err != nil:
		return p.ln.Addr().String()
	case p.IP != "":
		host = p.IP
	}
	return net.JoinHostPort(host, number)
}

// run serves the ports until all have ended. One that fails ends the others.
func (s *Server) run(ctx context.Context) {
	defer close(s.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(s.ports))
	var wg sync.WaitGroup
	for i, p := range s.ports {
		wg.Go(func() {
			err := p.srv.Serve(ctx, p.ln)
			if errors.Is(err, kernel.ErrServerClosed) {
				return
			}
			errs[i] = fmt.Errorf("dubbo: dubbo.protocols.%s: %w", p.ID, err)
			cancel()
			_ = p.srv.Shutdown(context.Background()) // for Limits.Drain; the failure is what counts
		})
	}
	wg.Wait()
	s.err = errors.Join(errs...)
}

// Wait waits until the server has ended: its context has, or Shutdown or Close was called, and
// all connections are closed; then it returns nil. If a listener fails, all that is served drains,
// and Wait returns the failure.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// Shutdown drains all protocols at once, as kernel.Server.Shutdown does, and waits as Wait does.
func (s *Server) Shutdown(ctx context.Context) error {
	return s.end(func(srv *kernel.Server) error { return srv.Shutdown(ctx) })
}

// Close ends all protocols at once, as kernel.Server.Close does, and waits as Wait does.
func (s *Server) Close() error { return s.end((*kernel.Server).Close) }

func (s *Server) end(end func(*kernel.Server) error) error {
	errs := make([]error, len(s.ports))
	var wg sync.WaitGroup
	for i, p := range s.ports {
		wg.Go(func() { errs[i] = end(p.srv) })
	}
	wg.Wait()
	return errors.Join(append(errs, s.Wait())...)
}

// Addrs returns where the protocols listen, in their order.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.ports))
	for i, p := range s.ports {
		addrs[i] = p.ln.Addr()
	}
	return addrs
}

// URLs returns what Start has logged: "triple://IP:PORT/INTERFACE" for each service on each of
// its protocols, and "triple://IP:PORT" for a protocol that has none.
func (s *Server) URLs() []string { return slices.Clone(s.urls) }

// Servers returns the servers of the protocols, in their order, for their Stats and Conns.
func (s *Server) Servers() []*kernel.Server {
	all := make([]*kernel.Server, len(s.ports))
	for i, p := range s.ports {
		all[i] = p.srv
	}
	return all
}
