package strm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// packet handles an RPC packet: a request, or the answer to one of ours. via is the
// stream whose frame it came wrapped in, or nil.
func (s *Session) packet(meta, payload []byte, via *stream) error {
	m, err := s.packetMeta(meta)
	switch {
	case err != nil:
		return err
	case s.client:
		err = s.response(m, payload, via)
	default:
		err = s.request(m, payload)
	}
	m.reset() // the next packet may never come
	return err
}

func (s *Session) packetMeta(meta []byte) (*rpcMeta, error) {
	m := &s.in.rpc
	if err := m.parse(meta); err != nil {
		return nil, err
	}
	s.in.hasAnswer = false
	switch {
	case s.client && m.isRequest:
		return nil, failf("the server sent a request")
	case !s.client && !m.isRequest:
		return nil, failf("the client sent a packet that is not a request")
	}
	return m, nil
}

// longPacket decides how to read a long message. That of a call is handed on as it
// comes, unless it is compressed or has a checksum. Any other is collected.
func (s *Session) longPacket(meta []byte) error {
	in := &s.in
	m, err := s.packetMeta(meta)
	if err != nil {
		return err
	}
	in.rest = in.body - in.meta
	plain := m.compress == compressNone && m.checksum == checksumNone && !m.hasSettings &&
		m.errno == 0 && m.attachment >= 0 && int(m.attachment) <= in.rest
	in.st = nil
	if plain {
		in.st = s.beginCall(m)
	}
	m.reset()
	if in.st != nil {
		in.state, in.first, in.call, in.fm = inPieces, true, true, frameMeta{}
		return nil
	}
	if err := collectable(in.body); err != nil {
		return err
	}
	in.state = inPacket
	in.got, in.ngot = pool.New(min(in.body, len(meta)+wholeMax)), len(meta)
	copy(in.got.Bytes(), meta)
	return nil
}

// beginCall returns the stream of the call that m begins or answers, or nil.
func (s *Session) beginCall(m *rpcMeta) *stream {
	if !s.client {
		if s.in.next+2 > maxStream {
			return nil
		}
		return s.offer(m, 1)
	}
	st, c := s.requestOf(m, nil)
	if c == nil || !c.unary {
		return nil
	}
	c.answered = true
	s.in.trailer = m.metadata()
	s.emit(frame.Frame{Kind: frame.Accept, Stream: st.id, Metadata: s.in.trailer, Omitted: m.omitted(), Grants: s.in.grantsFor(1, false)})
	return st
}

// callPiece hands on a piece of a call's message, and after the last the end. A client
// drops it if the call was canceled. A server does not: its handler may answer before
// the request is complete.
func (s *Session) callPiece(p []byte, first bool, f *frame.Frame) {
	in := &s.in
	last := in.rest == 0
	if last {
		in.call = false
	}
	if s.client && in.st.is(removed) {
		if last {
			s.answeredLate(int64(in.st.id))
		}
		return
	}
	s.setData(f, in.st, &in.fm, p, first, last)
	if last {
		s.emit(frame.Frame{Kind: frame.EOS, Stream: in.st.id, Metadata: in.trailer})
		in.trailer = nil
		if s.client {
			s.forget(in.st)
		}
	}
}

// forget removes st from the table.
func (s *Session) forget(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.remove(st)
}

// wrapped handles the packet in a data frame of st: the answer to the request that opens
// st.
func (s *Session) wrapped(b []byte, st *stream) error {
	if len(b) < headerLen || binary.BigEndian.Uint32(b) != magicRPC {
		return failf("stream %d: data before the answer", st.id)
	}
	body, meta := int64(binary.BigEndian.Uint32(b[4:])), int64(binary.BigEndian.Uint32(b[8:]))
	if b = b[headerLen:]; body != int64(len(b)) || meta > body || meta > maxRPCMeta || meta == 0 {
		return codef(status.FrameSize, "stream %d: an answer of %d bytes, meta %d, in %d", st.id, body, meta, len(b))
	}
	return s.packet(b[:meta], b[meta:], st)
}

// A refusal is the error that answers a message which is not handed on.
type refusal struct {
	errno int
	text  string
}

// unpack returns the message that a packet carries, its attachment at its end.
func (s *Session) unpack(m *rpcMeta, payload []byte, what string) ([]byte, *refusal) {
	if m.attachment < 0 || int(m.attachment) > len(payload) {
		return nil, &refusal{eRequest, fmt.Sprintf("attachment_size=%d is larger than %s_size=%d", m.attachment, what, len(payload))}
	}
	body := payload[:len(payload)-int(m.attachment)]
	attachment := payload[len(body):]
	if m.checksum != checksumNone && !m.verify(body, attachment) {
		return nil, m.unreadable(what, len(payload))
	}
	if m.compress == compressNone {
		return payload, nil
	}
	msg, err := decompress(m.compress, body, s.maxMessage-len(attachment), len(attachment))
	switch {
	case errors.Is(err, errTooLong):
		return nil, &refusal{errnoOf(status.TooLarge, false), fmt.Sprintf("%s of more than %d bytes", what, s.maxMessage)}
	case err != nil:
		return nil, m.unreadable(what, len(payload))
	}
	return append(msg, attachment...), nil
}

func (m *rpcMeta) verify(body, attachment []byte) bool {
	if m.checksum != checksumCRC32C {
		return false
	}
	if !m.sumAll {
		attachment = nil
	}
	sum := checksum(body, attachment)
	return string(m.sum) == string(sum[:])
}

// unreadable is the refusal of a message that can't be decoded, with brpc's text.
func (m *rpcMeta) unreadable(what string, size int) *refusal {
	return &refusal{eRequest, fmt.Sprintf("Fail to parse %s, ContentType=%s, CompressType=%s, ChecksumType=%s, %s_size=%d",
		what, nameOf(contentNames, m.content), nameOf(compressNames, m.compress), nameOf(checksumNames, m.checksum), what, size)}
}

// request handles a request of the peer: a call, or one that opens streams.
func (s *Session) request(m *rpcMeta, payload []byte) error {
	in := &s.in
	n := 1
	if m.hasSettings {
		n += m.settings.count
	}
	if n > maxGroup {
		return s.refuse(m, &refusal{eRequest, fmt.Sprintf("%d streams in one request, at most %d", n, maxGroup)})
	}
	msg, refused := s.unpack(m, payload, "request")
	if refused != nil {
		return s.refuse(m, refused)
	}
	if in.next+2*uint64(n) > maxStream {
		return failf("no stream numbers are left")
	}
	st := s.offer(m, n)
	if m.hasSettings {
		in.queue[len(in.queue)-1].Payload = msg
		return nil
	}
	s.emit(frame.Frame{Kind: frame.Data, Stream: st.id, Payload: msg, First: true, Last: true, Total: len(msg), Cost: len(msg) + overhead})
	s.emit(frame.Frame{Kind: frame.EOS, Stream: st.id})
	return nil
}

// offer enters a request for n streams into the table, and emits its Open. It returns the
// first stream.
func (s *Session) offer(m *rpcMeta, n int) *stream {
	in := &s.in
	c := s.newCall(call{
		first: in.next, n: n, unary: !m.hasSettings, correlation: m.correlation,
		noPackage: bytes.IndexByte(m.service, '.') < 0,
	}, offered, nil)
	in.next += 2 * uint64(n)
	s.emit(frame.Frame{
		Kind: frame.Open, Stream: c.first, Unary: c.unary, Method: in.methodOf(m),
		Metadata: m.metadata(), Omitted: m.omitted(), Deadline: time.Duration(max(m.timeout, 0)) * time.Millisecond,
		Grants: in.grantsFor(n, !c.unary && !m.settings.writable),
	})
	return s.noteSettings(m, c)
}

// methodOf is the method's name. It allocates only if the name differs from the last one.
func (in *input) methodOf(m *rpcMeta) string {
	n := len(m.service)
	last := in.method
	if len(last) == n+1+len(m.method) && last[:n] == string(m.service) && last[n] == '/' && last[n+1:] == string(m.method) {
		return last
	}
	in.method = string(m.method)
	if len(m.service) > 0 {
		in.method = string(m.service) + "/" + in.method
	}
	return in.method
}

// grantsFor returns n grants, valid until the next call.
func (in *input) grantsFor(n int, noReceive bool) []frame.Grant {
	in.grants = in.grants[:0]
	for range n {
		in.grants = append(in.grants, frame.Grant{NoReceive: noReceive})
	}
	return in.grants
}

// noteSettings stores a request's settings in its streams, and returns the first.
func (s *Session) noteSettings(m *rpcMeta, c *call) (first *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(c, func(i int, st *stream) {
		if i == 0 {
			first = st
		}
		if st.peer = m.settings.id; i > 0 {
			st.peer = m.settings.extra[i-1]
		}
		st.feedback, st.noReceive = m.settings.feedback, !m.settings.writable
	})
	return first
}

// refuse answers a request with an error; the kernel does not see the request.
func (s *Session) refuse(m *rpcMeta, refused *refusal) error {
	text := errorText(refused.errno, refused.text)
	if err := s.uselessFrame(); err != nil {
		return err
	}
	return s.reply(func(b []byte) []byte {
		if !m.hasSettings {
			return appendFailure(b, m, refused.errno, text)
		}
		packet := appendFailure(nil, m, refused.errno, text)
		return append(appendDataHead(b, m.settings.id, noStream, len(packet), false), packet...)
	})
}

// response handles the answer to a request of ours. If that was canceled, it resets the
// streams that the answer names.
func (s *Session) response(m *rpcMeta, payload []byte, via *stream) error {
	st, c := s.requestOf(m, via)
	if c == nil {
		if via != nil {
			return failf("stream %d: the answer is to another request, %d", via.id, m.correlation)
		}
		s.answeredLate(m.correlation)
		if !m.hasSettings {
			return s.lateFrame()
		}
		return s.resetAll(m, 0)
	}
	s.loggedOff(m)
	err := error(nil)
	if c.unary {
		err = s.replied(m, payload, st)
	} else {
		err = s.opened(m, payload, c)
		s.answeredLate(m.correlation)
	}
	if err == nil && m.errno == eLimit {
		err = s.refusedForTooMany()
	}
	return err
}

// loggedOff emits a GOAWAY when an answer says that the server is stopping: brpc's
// clients send it no further requests then.
func (s *Session) loggedOff(m *rpcMeta) {
	if m.errno == eLogoff && !s.in.loggedOff {
		s.in.loggedOff = true
		s.emit(frame.Frame{Kind: frame.GoAway, Value: maxStream})
	}
}

// requestOf finds the request that m answers.
func (s *Session) requestOf(m *rpcMeta, via *stream) (*stream, *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.table.streams[uint64(m.correlation)]
	if st == nil || !st.is(requested) || via != nil && via != st {
		return nil, nil
	}
	c := st.call.Load()
	if c == nil || !c.written || c.answered || c.first != st.id || via != nil && c.unary {
		return nil, nil
	}
	return st, c
}

// resetAll resets the streams that an answer names, from the i-th on.
func (s *Session) resetAll(m *rpcMeta, i int) error {
	return s.reply(func(b []byte) []byte {
		if i == 0 {
			b = appendRST(b, m.settings.id)
			i = 1
		}
		for _, id := range m.settings.extra[min(i-1, len(m.settings.extra)):] {
			b = appendRST(b, id)
		}
		return b
	})
}

// replied handles the answer to a call.
func (s *Session) replied(m *rpcMeta, payload []byte, st *stream) error {
	s.forget(st)
	if m.hasSettings { // for streams that were not asked for
		if err := s.resetAll(m, 0); err != nil {
			return err
		}
	}
	code, notProcessed := meaning(int(m.errno))
	reason := reasonOf(int(m.errno), m.text)
	md := m.metadata()
	if notProcessed {
		s.emit(frame.Frame{Kind: frame.Reject, Stream: st.id, Code: code, Reason: reason, NotProcessed: true, Metadata: md, Omitted: m.omitted()})
		return nil
	}
	var msg []byte
	if code == status.OK {
		var refused *refusal
		if msg, refused = s.unpack(m, payload, "response"); refused != nil {
			code, reason = unreadableCode(refused), refused.text
		}
	}
	s.emit(frame.Frame{Kind: frame.Accept, Stream: st.id, Metadata: md, Omitted: m.omitted(), Grants: s.in.grantsFor(1, false)})
	if code == status.OK {
		s.emit(frame.Frame{Kind: frame.Data, Stream: st.id, Payload: msg, First: true, Last: true, Total: len(msg), Cost: len(msg) + overhead})
		reason = ""
	}
	s.emit(frame.Frame{Kind: frame.EOS, Stream: st.id, Code: code, Reason: reason, Metadata: md})
	return nil
}

// unreadableCode is the code of an answer that we can't decode.
func unreadableCode(refused *refusal) status.Code {
	if refused.errno == eRequest {
		return status.DataLoss
	}
	return CodeOf(refused.errno)
}

// noAccept is what brpc tells a caller whose streams were not accepted.
const noAccept = "The server didn't accept the stream"

// opened handles the answer to a request for streams.
func (s *Session) opened(m *rpcMeta, payload []byte, c *call) error {
	refused := frame.Frame{Kind: frame.Reject}
	var msg []byte
	switch {
	case m.errno != 0:
		refused.Code, refused.NotProcessed = meaning(int(m.errno))
		refused.Reason = reasonOf(int(m.errno), m.text)
	case !m.hasSettings:
		refused.Code, refused.Reason = status.FailedPrecondition, noAccept
	default:
		var bad *refusal
		if msg, bad = s.unpack(m, payload, "response"); bad != nil {
			refused.Code, refused.Reason = unreadableCode(bad), bad.text
		}
	}
	if refused.Code != status.OK || refused.Reason != "" {
		refused.Metadata, refused.Omitted = m.metadata(), m.omitted()
		return s.notOpened(m, c, refused)
	}
	accepted := min(1+m.settings.count, c.n)
	first, unwanted, ended := s.establish(m, c, accepted)
	for _, id := range ended {
		s.emit(frame.Frame{Kind: frame.EOS, Stream: id})
	}
	if err := s.resetUnwanted(m, c.n, unwanted); err != nil || first == 0 {
		return err
	}
	s.emit(frame.Frame{
		Kind: frame.Accept, Stream: first, Payload: msg, Metadata: m.metadata(), Omitted: m.omitted(),
		Grants: s.in.grantsFor(accepted, !m.settings.writable), Later: s.settle > 0,
	})
	if err := s.callWriter(); err != nil { // for lookAfter
		return err
	}
	return s.replay(c)
}

// notOpened ends the streams of a request that failed, and resets those that the server
// established all the same.
func (s *Session) notOpened(m *rpcMeta, c *call, refused frame.Frame) error {
	first := uint64(0)
	s.mu.Lock()
	s.each(c, func(_ int, st *stream) {
		if !st.canceled && first == 0 {
			first = st.id
		}
		s.table.remove(st)
	})
	s.mu.Unlock()
	if m.hasSettings {
		if err := s.resetAll(m, 0); err != nil {
			return err
		}
	}
	if first != 0 {
		refused.Stream = first
		s.emit(refused)
	}
	s.forgetEarly(c)
	return nil
}

// establish sets the phase of the streams of c that the server accepted. It returns the
// first that was not canceled, accepted or not, by which the kernel finds the others; the
// peer's ids of accepted streams that were canceled; and the streams that await removed.
func (s *Session) establish(m *rpcMeta, c *call, accepted int) (first uint64, unwanted []int64, ended []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(c, func(i int, st *stream) {
		if st.peer = m.settings.id; i > 0 && i < accepted {
			st.peer = m.settings.extra[i-1]
		}
		st.feedback, st.noReceive = m.settings.feedback, !m.settings.writable
		st.call.Store(nil)
		if first == 0 && !st.canceled {
			first = st.id
		}
		switch {
		case i >= accepted:
			s.table.remove(st)
		case st.canceled:
			s.table.settleGivenUp(st)
			unwanted = append(unwanted, st.peer)
			if id := s.await(st, discarding); id != 0 {
				ended = append(ended, id)
			}
		default:
			st.waits.Store(s.settle > 0)
			st.phase.Store(uint32(established))
			s.young = append(s.young, st)
		}
	})
	return first, unwanted, ended
}

// resetUnwanted resets streams that were canceled meanwhile, and those beyond the number
// requested.
func (s *Session) resetUnwanted(m *rpcMeta, requested int, unwanted []int64) error {
	if len(unwanted) == 0 && m.settings.count < requested {
		return nil
	}
	return s.reply(func(b []byte) []byte {
		for _, id := range unwanted {
			b = appendRST(b, id)
		}
		for _, id := range m.settings.extra[min(requested-1, len(m.settings.extra)):] {
			b = appendRST(b, id)
		}
		return b
	})
}

func (s *Session) forgetEarly(c *call) {
	for i := range c.early {
		c.early[i].payload.Release()
	}
	c.early = nil
}

// splitMethod splits a method's name into the service and the method of the wire.
func splitMethod(method string) (service, name string) {
	i := strings.LastIndexByte(method, '/')
	return method[:max(i, 0)], method[i+1:]
}
