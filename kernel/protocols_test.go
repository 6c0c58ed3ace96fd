package kernel_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/internal/testkit/capwire"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// A foreign protocol is one of another system, over which the one suite runs as
// far as the protocol can carry it.
type foreign struct {
	name  string
	proto frame.Protocol
	// cannot names the tests that ask for what the protocol does not have, or, with
	// a slash, a part of one, and says what that is.
	cannot map[string]string
	// code is what a code of an answer becomes on its way.
	code func(status.Code) status.Code
	// notProcessed tells whether a refusal with a code can say that no handler has
	// seen the open.
	notProcessed func(status.Code) bool
	connect      starter
}

var foreigns = append([]foreign{
	{"brpc", strm.Protocol{}, brpcCannot, brpcCode, brpcNotProcessed, loops},
	{"grpc", triple.Protocol{InsecureToken: true}, grpcCannot, nil, nil, loops},
}, capWires()...)

// capWires are protocols that lack something that sluice's own has: HTTP/2's set, and
// each capability alone. A stop ends one half: there is none where no half ends alone.
func capWires() (ws []foreign) {
	add := func(name string, p *capwire.Protocol) {
		p.C.Name = name
		ws = append(ws, foreign{
			name: name, proto: p, connect: kerneltest.Start,
			code: func(c status.Code) status.Code { return c }, notProcessed: func(status.Code) bool { return true },
		})
	}
	add("as-http2", capwire.HTTP2())
	if raceEnabled {
		return ws // the others take too long
	}
	for name, without := range map[string]func(c *frame.Caps){
		"no-half-close":   func(c *frame.Caps) { c.HalfClose, c.Stop = false, false },
		"no-ended":        func(c *frame.Caps) { c.Ended = false },
		"no-status":       func(c *frame.Caps) { c.Status = false },
		"no-stop":         func(c *frame.Caps) { c.Stop = false },
		"no-server-opens": func(c *frame.Caps) { c.ServerOpens = false },
		"no-early":        func(c *frame.Caps) { c.Early = false },
		"no-ping":         func(c *frame.Caps) { c.Ping = false },
		"no-read-reports": func(c *frame.Caps) { c.ReadReports = false },
		"fixed-window":    func(c *frame.Caps) { c.FixedWindow = true },
		"nothing-inline":  func(c *frame.Caps) { c.MaxInline = 0 },
		"no-groups":       func(c *frame.Caps) { c.MaxGroup = 1 },
		"prefix-of-5":     func(c *frame.Caps) { c.Overhead, c.LeastPiece = 5, 1 },
		"everything":      func(*frame.Caps) {},
	} {
		p := &capwire.Protocol{C: native.Protocol{}.Caps(), Relative: name == "prefix-of-5"}
		p.C.ALPN = ""
		without(&p.C)
		add(name, p)
	}
	return ws
}

// A need is what a test, or a part of one, asks of a protocol.
type need struct {
	met func(c *frame.Caps) bool
	why string
}

// The needs that several tests share.
var (
	needsHalfClose   = need{func(c *frame.Caps) bool { return c.HalfClose }, "one half of a stream ends without the other"}
	needsStatus      = need{func(c *frame.Caps) bool { return c.Status }, "a stream's end has a status and trailers"}
	needsStop        = need{func(c *frame.Caps) bool { return c.Stop }, "a reader can stop its writer"}
	needsGranted     = need{func(c *frame.Caps) bool { return c.Pacing == frame.Granted }, "the reader grants credit"}
	needsLimits      = need{func(c *frame.Caps) bool { return c.Limits }, "each side says what it takes"}
	needsServerOpens = need{func(c *frame.Caps) bool { return c.ServerOpens }, "the server opens streams too"}
	needsGroups      = need{func(c *frame.Caps) bool { return c.MaxGroup > 1 }, "a request opens several streams"}
	needsGrants      = need{func(c *frame.Caps) bool { return !c.FixedWindow }, "an open says what its opener takes"}
	needsReports     = need{func(c *frame.Caps) bool { return c.ReadReports }, "the peer reports what it has read"}
)

// needs is what tests ask for, by their names.
var needs = map[string][]need{
	"TestLargeMessagesTakeTurns":             {needsReports},
	"TestHalvesEndSeparately":                {needsHalfClose},
	"TestCloseOfOutComesAfterItsMessages":    {needsHalfClose},
	"TestHandlerReturnsAnError":              {needsStatus},
	"TestDetailsOfAStatus":                   {needsStatus},
	"TestAFailureWithoutACodeIsNoSuccess":    {needsStatus},
	"TestCloseReceiveStopsThePeer":           {needsStop},
	"TestCreditIsExact":                      {needsGranted},
	"TestCreditIsExact/opener's_SendLimit":   {needsGrants},
	"TestCreditIsExact/acceptor's_SendLimit": {needsGrants},
	"TestCreditIsExact/limits_of_both":       {needsGrants},
	"TestCreditIsExact/opener's_Window":      {needsGrants},
	"TestStuckReadersDelayNoOtherStream":     {needsGranted},
	"TestStreamsStuckAfterTheyGrew":          {needsGranted},
	"TestTooLargeFailsAtTheWriter":           {needsLimits},
	"TestStreamsAreLimited":                  {needsLimits},
	"TestSeveralStreamsByOneRequest":         {needsGroups},
	"TestPartOfAGroup":                       {needsGroups},
	"TestOneOfAGroupIsWriteOnly":             {needsGroups, needsGrants, needsGranted},
	"TestGroupsSendNothingUntilAccepted":     {needsGroups},
	"TestWriteOnly":                          {needsGrants},
	"TestServerOpenedStreams":                {needsServerOpens},
	"TestServersOpensRacingTheClientsEnd":    {needsServerOpens},
	"TestHandlersServeServersAndClients":     {needsServerOpens},
	"TestClientsOffers":                      {needsServerOpens},
}

// brpcCannot is what docs/interop.md says of brpc beside its capabilities, as tests. What
// happens instead is tested in internal/interop.
var brpcCannot = map[string]string{
	"TestACanceledOffer":               "a stream that was given up before its answer is reset when that comes",
	"TestManyCallsSideBySide":          "cancelling a call: the server is not told",
	"TestCallsSayHowTheirContextEnded": "cancelling a call: the server is not told",
	"TestCallsWithoutTheOneReply":      "an answer has one message: none is an empty one, a second is the server's error",
}

// grpcCannot is what docs/interop.md says of gRPC beside its capabilities.
var grpcCannot = map[string]string{
	"TestAuthentication": "a token travels with each call, to Authorize",
}

// brpcCode is what a code becomes as an error of brpc's.
func brpcCode(c status.Code) status.Code { return strm.CodeOf(strm.Errno(c)) }

// brpcNotProcessed: brpc clients retry after these, and no others.
func brpcNotProcessed(c status.Code) bool {
	switch c {
	case status.Unimplemented, status.ResourceExhausted, status.GoingAway, status.Refused:
		return true
	}
	return false
}

// known is w with what its client's connection can carry.
func known(w *testkit.World) *world {
	k := &world{World: w}
	conns := w.Client.Conns()
	if len(conns) == 0 {
		return k
	}
	k.caps = conns[0].Caps()
	for i := range foreigns {
		if foreigns[i].name == conns[0].Protocol() && foreigns[i].name == "brpc" {
			k.other = &foreigns[i]
		}
	}
	return k
}

// answered is what a code becomes in the answer to an open or a call.
func (w *world) answered(c status.Code) status.Code {
	if w.other == nil {
		return c
	}
	return w.other.code(c)
}

// notProcessed tells whether a refusal with code c can say that no handler saw the open.
func (w *world) notProcessed(c status.Code) bool { return w.other == nil || w.other.notProcessed(c) }

// told is the code that the other side of an established stream gets for its
// end, where that is not in order.
func (w *world) told(c status.Code) status.Code {
	if w.caps.Status {
		return c
	}
	return status.Aborted
}

// endSend ends s's sending half. Where a stream ends as a whole it ends the
// stream, and what the peer still sends is not read: Close must succeed, which is
// waited for when the test is over.
func (w *world) endSend(s *kernel.Stream) {
	if w.caps.HalfClose {
		if err := s.CloseSend(); err != nil {
			w.T.Errorf("CloseSend: %v", err)
		}
		return
	}
	closed := make(chan error, 1)
	w.T.Cleanup(func() { // before the peer can see the end, and the test be over
		if err := <-closed; err != nil && !w.T.Failed() {
			w.T.Errorf("Close: %v", err)
		}
	})
	go func() { closed <- s.Close(w.Ctx) }()
}

// half ends s's sending half while the other is open. Where that can't be, it
// must be said, and half returns false.
func (w *world) half(s *kernel.Stream) bool {
	err := s.CloseSend()
	switch {
	case w.caps.HalfClose && err != nil:
		w.T.Errorf("CloseSend: %v", err)
	case !w.caps.HalfClose && !errors.Is(err, kernel.ErrNotSupported):
		w.T.Errorf("CloseSend where a half can't end: %v", err)
	}
	return w.caps.HalfClose
}

// stopsAtEnd tells whether a writer learns that its reader has ended when that has ended
// its own half too.
func (w *world) stopsAtEnd() bool { return w.caps.Stop || w.caps.StopAtEnd }

// limitsAreTold tells whether a side knows what the other takes.
func (w *world) limitsAreTold() bool { return w.other == nil }

// start connects a server that speaks the protocol beside sluice's own with a
// client that speaks it.
func (p foreign) start(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	s, c := testkit.OrZero(so), testkit.OrZero(co)
	s.Protocols = []frame.Protocol{native.Protocol{}, p.proto}
	c.Protocols = []frame.Protocol{p.proto}
	return p.connect(t, &s, &c)
}

// lacks tells whether a test is one of those that the protocol can't carry.
func (p foreign) lacks(test string) bool {
	caps := p.proto.Caps()
	for {
		if _, ok := p.cannot[test]; ok {
			return true
		}
		for _, n := range needs[test] {
			if !n.met(&caps) {
				return true
			}
		}
		i := strings.LastIndexByte(test, '/')
		if i < 0 {
			return false
		}
		test = test[:i]
	}
}

// What a protocol is said not to carry must be a test, or the list has aged.
func TestForeignListsNameTests(t *testing.T) {
	tests := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				tests[fn.Name.Name] = true
			}
		}
	}
	for _, p := range foreigns {
		for name, why := range p.cannot {
			top, _, _ := strings.Cut(name, "/")
			if !tests[top] || why == "" {
				t.Errorf("%s: %q: %q", p.name, name, why)
			}
		}
	}
	for name := range needs {
		if top, _, _ := strings.Cut(name, "/"); !tests[top] {
			t.Errorf("no test %q has needs", name)
		}
	}
}

// A call's request comes before anybody could have said how much may come.
func TestLargeCalls(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("a/echo", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			return s.Send(ctx, m)
		})
		for _, n := range []int{0, 1, 9 << 10, 100 << 10, 3 << 20} {
			reply, err := w.Client.Call(w.Ctx, "a/echo", sized(n, 'x'), nil)
			if err != nil || reply.Len() != n {
				t.Fatalf("a call of %d bytes came back with %d, error %v", n, reply.Len(), err)
			}
			reply.Release()
		}
	})
}
