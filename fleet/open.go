package fleet

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// mostTries is how many endpoints a call or an open tries at most before it fails, where
// nothing was sent to them.
const mostTries = 3

// Conn returns a connection that takes new streams, to the endpoint whose turn it is. It makes
// one if there is none. Options.Key is not asked: with Ketama the connection is any.
func (c *Client) Conn(ctx context.Context) (k *kernel.Conn, err error) {
	err = c.each(ctx, 0, false, func(_ *member, client *kernel.Client) error {
		k, err = client.Conn(ctx)
		return err
	})
	return k, err
}

// Open opens a stream to the endpoint whose turn it is: see kernel.Client.Open. The stream stays
// there, also when the endpoint is removed.
//
// If no endpoint is connected, Open waits for the first connection. It gives up when three
// attempts have failed, or when all endpoints are in the pause of Backoff, with the
// status.ConnError of the last attempt. Before there is a first set of endpoints it waits for
// that, and fails with status.Unavailable if the registry can't be asked. With
// OpenOptions.WaitForReady it goes on in all these cases until ctx ends, or a server refuses the
// client for good. An endpoint to which nothing was sent because of a lost connection costs an
// attempt, of three, and the next one has its turn.
//
// ctx bounds the stream's life too: see kernel.Conn.Open.
func (c *Client) Open(ctx context.Context, method string, opts *kernel.OpenOptions) (s *kernel.Stream, err error) {
	o, patient := openOptions(opts)
	at, err := c.point(ctx, method, metadataOf(opts))
	if err != nil {
		return nil, err
	}
	err = c.each(ctx, at, patient, func(_ *member, client *kernel.Client) error {
		s, err = client.Open(ctx, method, o)
		return err
	})
	return s, err
}

// OpenN opens len(each) streams with one request, all to one endpoint: see Open and
// kernel.Client.OpenN.
func (c *Client) OpenN(ctx context.Context, method string, opts *kernel.OpenOptions, each ...kernel.StreamOptions) (ss []*kernel.Stream, err error) {
	o, patient := openOptions(opts)
	at, err := c.point(ctx, method, metadataOf(opts))
	if err != nil {
		return nil, err
	}
	err = c.each(ctx, at, patient, func(_ *member, client *kernel.Client) error {
		ss, err = client.OpenN(ctx, method, o, each...)
		return err
	})
	return ss, err
}

// Call makes a unary call to the endpoint whose turn it is: see Open and kernel.Client.Call. If
// it succeeds, it has taken over req, and the reply belongs to the caller. If it fails, req
// still belongs to the caller. A server that refuses the call unprocessed because it drains, or
// with status.Refused, costs an attempt, of three, and the next endpoint has its turn. No other
// failure is tried again: package retry does that.
func (c *Client) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (reply pool.Message, err error) {
	ctx, cancel := opts.Bound(ctx)
	defer cancel()
	o, patient := callOptions(opts)
	var md metadata.MD
	if opts != nil {
		md = opts.Metadata
	}
	at, err := c.point(ctx, method, md)
	if err != nil {
		return pool.Message{}, err
	}
	err = c.each(ctx, at, patient, func(m *member, client *kernel.Client) error {
		reply, err = client.Call(ctx, method, req, o)
		c.judge(m, err)
		return err
	})
	return reply, err
}

func metadataOf(o *kernel.OpenOptions) metadata.MD {
	if o == nil {
		return nil
	}
	return o.Metadata
}

// openOptions are the options for one endpoint: who waits is this package.
func openOptions(o *kernel.OpenOptions) (*kernel.OpenOptions, bool) {
	if o == nil || !o.WaitForReady {
		return o, false
	}
	r := *o
	r.WaitForReady = false
	return &r, true
}

// callOptions are the options for one endpoint; the context has the timeout.
func callOptions(o *kernel.CallOptions) (*kernel.CallOptions, bool) {
	if o == nil || !o.WaitForReady && o.Timeout <= 0 {
		return o, false
	}
	r := *o
	r.WaitForReady, r.Timeout = false, kernel.Unlimited
	return &r, o.WaitForReady
}

// each calls f with the client of the endpoint whose turn it is, and of the next ones as long
// as nothing was sent.
func (c *Client) each(ctx context.Context, at uint64, patient bool, f func(*member, *kernel.Client) error) error {
	for try := 1; ; try++ {
		m, err := c.acquire(ctx, at, patient)
		if err != nil {
			return err
		}
		err = c.use(ctx, m, f)
		if err == nil || !elsewhere(ctx, err) || try >= mostTries && !patient {
			return err
		}
	}
}

// use calls f with a member's client, and notes what comes of it.
func (c *Client) use(ctx context.Context, m *member, f func(*member, *kernel.Client) error) error {
	defer m.release()
	client, err := m.kernel()
	if err == nil {
		m.opens.Add(1)
		err = f(m, client)
	}
	switch {
	case err == nil:
		if m.next.Load() != 0 {
			m.succeed()
		}
	case ctx.Err() == nil && notConnected(err) && !errors.Is(err, kernel.ErrClosed):
		m.fail(err)
	}
	return err
}

// notConnected reports whether err says that there was no connection to send anything on.
func notConnected(err error) bool {
	var ce *status.ConnError
	return !errors.As(err, new(*status.StreamError)) && errors.As(err, &ce) && (ce.Op == "dial" || ce.Op == "handshake")
}

// elsewhere reports whether what failed with err may be done at another endpoint: nothing was
// sent, or no handler has seen it.
func elsewhere(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if se := new(status.StreamError); errors.As(err, &se) {
		return se.NotProcessed && (se.Code == status.GoingAway || se.Code == status.Refused)
	}
	return notConnected(err) && mayPass(err)
}

// mayPass reports whether a connection that has failed with err may succeed at another time, or
// at another endpoint.
func mayPass(err error) bool {
	code, _ := status.Of(err)
	switch code {
	case status.Unauthenticated, status.PermissionDenied, status.Version, status.Unimplemented, status.InvalidArgument:
		return false
	}
	return true
}

// A cancelledError is a context's cause, with what has failed before it ended.
type cancelledError struct{ cause, before error }

func (e *cancelledError) Error() string {
	return fmt.Sprintf("%v, after: %v", e.cause, e.before)
}

// Unwrap returns both.
func (e *cancelledError) Unwrap() []error { return []error{e.cause, e.before} }
