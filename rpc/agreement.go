package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// The keys of metadata that this package reserves. Where the protocol carries metadata,
// each typed open and call has both, and the answer to one that lacks a key has that.
// Their values are signatures: see codec.Marshaler.Signature. Behind the signature of a
// request or result in which streams are passed come those of the streams' values, in
// the order of their types, behind a comma each. A side that finds one that does not agree
// with its own refuses with status.InvalidArgument; a key that is absent agrees with
// anything, and so does one that an encoding without a name has no value for. The metadata
// of a program can't have these keys; Stream.Metadata and CallOptions.Header show them.
const (
	// KeyRequest is for the values that the opening side sends.
	KeyRequest = "sluice-request"
	// KeyReply is for the values that the accepting side sends.
	KeyReply = "sluice-reply"
)

// ErrEncoding: the two sides, or a sink and the call that it is passed to, carry values by
// encodings that do not agree.
var ErrEncoding = errors.New("sluice: encodings do not agree")

// signatures are what is said of both directions.
type signatures struct{ request, reply string }

// addTo returns md with the signatures behind it. It uses room, which may be nil.
func (s signatures) addTo(md, room metadata.MD) (metadata.MD, error) {
	for i := range md {
		if k := md[i].Key; k == KeyRequest || k == KeyReply {
			return nil, fmt.Errorf("%w: %q is reserved", kernel.ErrMetadataKey, k)
		}
	}
	if s == (signatures{}) {
		return md, nil
	}
	if n := len(md) + 2; cap(room) < n {
		room = make(metadata.MD, 0, n)
	}
	return s.appendTo(append(room, md...)), nil
}

func (s signatures) appendTo(md metadata.MD) metadata.MD {
	if s.request != "" {
		md = append(md, metadata.Field{Key: KeyRequest, Value: s.request})
	}
	if s.reply != "" {
		md = append(md, metadata.Field{Key: KeyReply, Value: s.reply})
	}
	return md
}

// missing is what md does not say of them.
func (s signatures) missing(md metadata.MD) metadata.MD {
	if md.Get(KeyRequest) != "" {
		s.request = ""
	}
	if md.Get(KeyReply) != "" {
		s.reply = ""
	}
	return s.appendTo(nil)
}

// agree tells whether two lists of signatures are of the same values, as far as both say.
func agree(a, b string) bool {
	for a != b && a != "" && b != "" {
		var one, other string
		one, a, _ = strings.Cut(a, ",")
		other, b, _ = strings.Cut(b, ",")
		name, typ, _ := strings.Cut(one, ";")
		otherName, otherType, _ := strings.Cut(other, ";")
		if one != "" && other != "" && (name != otherName || typ != "" && otherType != "" && typ != otherType) {
			return false
		}
	}
	return true
}

// A pair carries the two directions of a stream or call: Req is what the opening side
// sends, Rep what the accepting side sends.
type pair[Req, Rep any] struct {
	e    *codec.Encoding
	req  *codec.Marshaler[Req]
	rep  *codec.Marshaler[Rep]
	says signatures // empty where nothing can be said
}

// encodingFor is e or, if that leaves the choice to the protocol, the protocol's.
func encodingFor(e *codec.Encoding, fixedValues bool) *codec.Encoding {
	switch {
	case e != nil && e != codec.Default:
		return e
	case fixedValues:
		return codec.Fixed
	}
	return codec.Default
}

// pairOf finds what carries the two types by e. fixedValues is what the protocol's
// capabilities say.
func pairOf[Req, Rep any](e *codec.Encoding, fixedValues bool) (pair[Req, Rep], error) {
	p := pair[Req, Rep]{e: encodingFor(e, fixedValues)}
	var err, err2 error
	p.req, err = codec.MarshalerOf[Req](p.e)
	p.rep, err2 = codec.MarshalerOf[Rep](p.e)
	if err != nil || err2 != nil {
		return p, cmp.Or(err, err2)
	}
	if !fixedValues {
		p.says = signatures{p.req.Signature(), p.rep.Signature()}
	}
	return p, nil
}

// elementsOnly fails if streams would be passed: a pair of streams' values can't do that.
func (p *pair[Req, Rep]) elementsOnly() error {
	return cmp.Or(noStreamsIn(p.req), noStreamsIn(p.rep))
}

// streamPair is pairOf for the values of a stream that this side opens.
func streamPair[Req, Rep any](method string, c kernel.Caller, e *codec.Encoding) (pair[Req, Rep], error) {
	p, err := pairOf[Req, Rep](e, c.Caps().FixedValues)
	if err == nil {
		err = p.elementsOnly()
	}
	if err != nil {
		return p, errtext.Errorf("sluice: %s: %w", method, err)
	}
	return p, nil
}

// refused is why the handler does not take what the metadata of an open says, or nil.
func (p *pair[Req, Rep]) refused(md metadata.MD) error {
	for i := range md {
		switch f := &md[i]; {
		case f.Key == KeyRequest && !agree(f.Value, p.says.request):
			return differ("request", f.Value, p.says.request, reflect.TypeFor[Req](), "the handler")
		case f.Key == KeyReply && !agree(f.Value, p.says.reply):
			return differ("reply", f.Value, p.says.reply, reflect.TypeFor[Rep](), "the handler")
		}
	}
	return nil
}

// answered is why the caller, to whom replies are of type rep, does not take what the
// header of an answer says, or nil.
func (s signatures) answered(header metadata.MD, rep reflect.Type) error {
	if theirs := header.Get(KeyRequest); !agree(theirs, s.request) {
		return differ("request", theirs, s.request, nil, "the caller")
	}
	if theirs := header.Get(KeyReply); !agree(theirs, s.reply) {
		return differ("reply", theirs, s.reply, rep, "the caller")
	}
	return nil
}

// differ says that values are something else for the other side than for this one, who.
// The type may be nil.
func differ(what, theirs, ours string, t reflect.Type, who string) error {
	mine := ""
	if t != nil {
		mine = " (" + t.String() + ")"
	}
	return fmt.Errorf("%w: the %s is %q on the other side, %q%s for %s", ErrEncoding, what, theirs[:min(len(theirs), 100)], ours, mine, who)
}

// A served is what a method is served with: over protocols in general, and over those
// whose values are laid out in the fixed way.
type served[Req, Rep any] struct {
	common, fixed pair[Req, Rep]
	noFixed       error // why there is no fixed
}

// serve finds it. complete may refuse a pair.
func serve[Req, Rep any](method string, e *codec.Encoding, complete func(*pair[Req, Rep]) error) (*served[Req, Rep], error) {
	find := func(p *pair[Req, Rep], fixedValues bool) (err error) {
		if *p, err = pairOf[Req, Rep](e, fixedValues); err == nil {
			err = complete(p)
		}
		return err
	}
	s := &served[Req, Rep]{}
	if err := find(&s.common, false); err != nil {
		return nil, errtext.Errorf("sluice: register %s: %w", method, err)
	}
	s.noFixed = find(&s.fixed, true)
	return s, nil
}

// on is the pair for what was opened with md by c's protocol. It fails, as the handler
// then does, if they don't agree.
func (s *served[Req, Rep]) on(c *kernel.Conn, method string, md metadata.MD) (*pair[Req, Rep], error) {
	if c.Caps().FixedValues {
		if s.noFixed != nil {
			return nil, &status.HandlerError{Code: status.Unimplemented, Reason: method + ": " + s.noFixed.Error()}
		}
		return &s.fixed, nil
	}
	if err := s.common.refused(md); err != nil {
		return nil, &status.HandlerError{Code: status.InvalidArgument, Reason: method + ": " + err.Error()}
	}
	return &s.common, nil
}

// begin is what a handler of a stream does first. If it fails the stream is refused.
func (s *served[Req, Rep]) begin(st *kernel.Stream) (*pair[Req, Rep], error) {
	md := st.Metadata()
	p, err := s.on(st.Conn(), st.Method(), md)
	if err != nil {
		return nil, err
	}
	if add := p.says.missing(md); add != nil {
		_ = st.SetHeader(add) // if the peer takes no metadata, it is not told
	}
	return p, nil
}

// beginWith is begin for a handler whose stream begins with a request.
func (s *served[Req, Rep]) beginWith(ctx context.Context, st *kernel.Stream) (*pair[Req, Rep], Req, error) {
	p, err := s.begin(st)
	if err != nil {
		var none Req
		return nil, none, err
	}
	req, err := receiveRequest(ctx, st, p.req)
	return p, req, err
}

// over is a context that has ended: what is asked with it does not wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// headerOf is the header of the answer to s, nil before that and on the accepting side.
func headerOf(s *kernel.Stream) metadata.MD {
	_, header, _ := s.Accepted(over)
	return header
}
