package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"time"

	pb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/interop/conformance/conformancepb"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Call makes the calls that in asks for, several at a time, and writes to out what became of
// each. It returns when in has ended and all are done.
func Call(ctx context.Context, in io.Reader, out io.Writer) error {
	return callAll(ctx, in, out, "grpc://", func(ctx context.Context, client *kernel.Client, req *conformancepb.ClientCompatRequest, cancel context.CancelFunc) (*conformancepb.ClientResponseResult, error) {
		c := &caller{client: client, req: req, method: service + req.GetMethod(), cancel: cancel}
		switch {
		case req.StreamType == conformancepb.StreamType_STREAM_TYPE_UNARY && len(req.RequestMessages) == 1:
			return c.unary(ctx)
		case req.StreamType == conformancepb.StreamType_STREAM_TYPE_UNSPECIFIED:
			return nil, errors.New("a call without a type")
		}
		return c.streaming(ctx)
	})
}

// A makeCall makes one call of the runner's. An error is about the request and not the call.
type makeCall func(ctx context.Context, client *kernel.Client, req *conformancepb.ClientCompatRequest, cancel context.CancelFunc) (*conformancepb.ClientResponseResult, error)

// callAll has f make the calls that in asks for, over the wire of a target's scheme.
func callAll(ctx context.Context, in io.Reader, out io.Writer, scheme string, f makeCall) error {
	var (
		work    sync.WaitGroup
		mu      sync.Mutex // guards out and failed
		failed  error
		running = make(chan struct{}, 4*runtime.GOMAXPROCS(0))
	)
	for {
		req := &conformancepb.ClientCompatRequest{}
		if err := read(in, req); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		running <- struct{}{}
		work.Go(func() {
			defer func() { <-running }()
			answer := &conformancepb.ClientCompatResponse{TestName: req.TestName}
			if r, err := one(ctx, req, scheme, f); err != nil {
				answer.Result = &conformancepb.ClientCompatResponse_Error{Error: &conformancepb.ClientErrorResult{Message: err.Error()}}
			} else {
				answer.Result = &conformancepb.ClientCompatResponse_Response{Response: r}
			}
			mu.Lock()
			defer mu.Unlock()
			if err := write(out, answer); err != nil {
				failed = err
			}
		})
	}
	work.Wait()
	return failed
}

// one makes one call with a client of its own.
func one(ctx context.Context, req *conformancepb.ClientCompatRequest, scheme string, f makeCall) (*conformancepb.ClientResponseResult, error) {
	if req.GetService()+"/" != service {
		return nil, fmt.Errorf("no service %q", req.GetService())
	}
	opts := &kernel.ClientOptions{
		Protocols: []frame.Protocol{native.Protocol{}, triple.Protocol{}},
		Limits:    kernel.Limits{MaxMessage: int(req.MessageReceiveLimit)},
	}
	if len(req.ServerTlsCert) > 0 {
		var err error
		if opts.TLS, err = clientTLS(req); err != nil {
			return nil, err
		}
	}
	addr := net.JoinHostPort(req.Host, strconv.Itoa(int(req.Port)))
	client, err := kernel.Dial(ctx, scheme+addr, opts)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if req.TimeoutMs != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*req.TimeoutMs)*time.Millisecond)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return f(ctx, client, req, cancel)
}

func clientTLS(req *conformancepb.ClientCompatRequest) (*tls.Config, error) {
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	if !c.RootCAs.AppendCertsFromPEM(req.ServerTlsCert) {
		return nil, errors.New("the server's certificate is not PEM")
	}
	if creds := req.ClientTlsCreds; creds != nil {
		cert, err := tls.X509KeyPair(creds.Cert, creds.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// A caller makes one call.
type caller struct {
	client *kernel.Client
	req    *conformancepb.ClientCompatRequest
	method string
	cancel context.CancelFunc
	result conformancepb.ClientResponseResult
}

func (c *caller) compression() pool.Compression {
	if c.req.Compression == conformancepb.Compression_COMPRESSION_GZIP {
		return pool.Gzip
	}
	return pool.NoCompression
}

func (c *caller) unary(ctx context.Context) (*conformancepb.ClientResponseResult, error) {
	if ms, ok := c.afterCloseSend(); ok {
		defer time.AfterFunc(ms, c.cancel).Stop()
	}
	var header, trailer metadata.MD
	reply, err := c.client.Call(ctx, c.method, c.request(0), &kernel.CallOptions{
		Metadata: metadataOf(c.req.RequestHeaders), Header: &header, Trailer: &trailer,
		Timeout: kernel.Unlimited, Compression: c.compression(),
	})
	if err == nil {
		err = c.response(reply)
	}
	var failed *status.StreamError
	switch {
	case err == nil:
	case errors.As(err, &failed):
		trailer = failed.Details
		c.failed(err)
	default: // the server's answer is no reply, or more than one
		c.failed(&status.StreamError{Code: status.Unimplemented, Reason: err.Error(), Cause: err})
	}
	c.result.ResponseHeaders, c.result.ResponseTrailers = headersOf(header), headersOf(trailer)
	return &c.result, nil
}

// request is request i as a message: the runner gives it as it is sent.
func (c *caller) request(i int) pool.Message {
	return pool.Copy(c.req.RequestMessages[i].Value)
}

// response keeps what is in a response. All kinds of responses have the same fields.
func (c *caller) response(m pool.Message) error {
	var r conformancepb.UnaryResponse
	if err := decode(m, &r); err != nil {
		return &status.StreamError{Code: status.Internal, Reason: err.Error()}
	}
	if r.Payload == nil {
		r.Payload = &conformancepb.ConformancePayload{}
	}
	c.result.Payloads = append(c.result.Payloads, r.Payload)
	return nil
}

// failed keeps why the call failed.
func (c *caller) failed(err error) {
	var e *status.StreamError
	if !errors.As(err, &e) {
		e = &status.StreamError{Reason: err.Error()}
		e.Code, _ = status.Of(err)
	}
	c.result.Error = &conformancepb.Error{Code: int32(triple.StatusOf(e.Code)), Message: proto.String(e.Reason)}
	var s pb.Status
	if p, ok := e.Details.Lookup(details); ok && proto.Unmarshal([]byte(p), &s) == nil {
		c.result.Error.Details = s.Details
	}
}

// afterCloseSend is how long after the last request the call is cancelled, if it is then.
func (c *caller) afterCloseSend() (time.Duration, bool) {
	if c.req.Cancel == nil {
		return 0, false
	}
	switch when := c.req.Cancel.CancelTiming.(type) {
	case *conformancepb.ClientCompatRequest_Cancel_AfterCloseSendMs:
		return time.Duration(when.AfterCloseSendMs) * time.Millisecond, true
	case nil:
		return 0, true
	}
	return 0, false
}

// onlyOne reports whether the call has one response.
func (c *caller) onlyOne() bool {
	return c.req.StreamType == conformancepb.StreamType_STREAM_TYPE_UNARY ||
		c.req.StreamType == conformancepb.StreamType_STREAM_TYPE_CLIENT_STREAM
}

func (c *caller) streaming(ctx context.Context) (*conformancepb.ClientResponseResult, error) {
	s, err := c.client.Open(ctx, c.method, &kernel.OpenOptions{
		Metadata: metadataOf(c.req.RequestHeaders),
		Stream:   kernel.StreamOptions{Compression: c.compression()},
	})
	if err != nil {
		c.failed(err)
		return &c.result, nil
	}
	err = c.exchange(ctx, s)
	if _, header, headerErr := s.Accepted(ctx); headerErr == nil {
		c.result.ResponseHeaders = headersOf(header)
	}
	trailer := s.Trailer()
	var failed *status.StreamError
	if errors.As(err, &failed) {
		trailer = failed.Details
	}
	if err == io.EOF && c.onlyOne() && len(c.result.Payloads) != 1 {
		err = &status.StreamError{Code: status.Unimplemented, Reason: fmt.Sprintf("%d responses", len(c.result.Payloads))}
	}
	if err != io.EOF {
		c.failed(err)
		if c.onlyOne() {
			c.result.Payloads = nil
		}
	}
	c.result.ResponseTrailers = headersOf(trailer)
	return &c.result, nil
}

// exchange sends the requests and receives the responses. It returns io.EOF if the call has
// ended well.
func (c *caller) exchange(ctx context.Context, s *kernel.Stream) error {
	full := c.req.StreamType == conformancepb.StreamType_STREAM_TYPE_FULL_DUPLEX_BIDI_STREAM
	for i := range c.req.RequestMessages {
		time.Sleep(time.Duration(c.req.RequestDelayMs) * time.Millisecond)
		m := c.request(i)
		if err := s.Send(ctx, m); err != nil {
			m.Release()
			c.result.NumUnsentRequests = int32(len(c.req.RequestMessages) - i)
			break // receiving tells why
		}
		if !full {
			continue
		}
		if err := c.receive(ctx, s); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if _, ok := c.req.Cancel.GetCancelTiming().(*conformancepb.ClientCompatRequest_Cancel_BeforeCloseSend); ok {
		c.cancel()
	}
	_ = s.CloseSend() // if it fails so does receiving
	if ms, ok := c.afterCloseSend(); ok {
		time.Sleep(ms)
		c.cancel()
	}
	for {
		if err := c.receive(ctx, s); err != nil {
			return err
		}
	}
}

// receive receives a response, and cancels the call if it was that many.
func (c *caller) receive(ctx context.Context, s *kernel.Stream) error {
	m, err := s.Receive(ctx)
	if err != nil {
		if e := s.Err(); e != nil && err != io.EOF {
			return e
		}
		return err
	}
	if err := c.response(m); err != nil {
		return err
	}
	if n := c.req.Cancel.GetAfterNumResponses(); n > 0 && int(n) == len(c.result.Payloads) {
		c.cancel()
	}
	return nil
}
