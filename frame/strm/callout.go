package strm

import (
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// unlimited is the least Grant.Limit that means no limit.
const unlimited = 1 << 62

// setSettings derives from the grants the settings that brpc has for all streams of a
// request together: whether we want reports, and whether we read.
func (c *call) setSettings(gs []frame.Grant) {
	c.feedback, c.writable = false, false
	for _, g := range gs {
		c.feedback = c.feedback || g.Limit < unlimited
		c.writable = c.writable || !g.NoReceive
	}
}

// setLimits keeps the limits that the handler has set for the streams' windows, if any.
func (c *call) setLimits(gs []frame.Grant) {
	for i := range gs {
		if gs[i].Limit > 0 {
			c.limits = append([]frame.Grant(nil), gs...)
			return
		}
	}
}

// window is the window of stream i.
func (c *call) window(i int) uint64 { return window(c.limits, i) }

// millis is a time left in milliseconds, as a request carries it: rounded up, as 0 means
// none, and at most what fits into timeout_ms.
func millis(d time.Duration) int64 {
	return int64((min(d, math.MaxInt32*time.Millisecond) + time.Millisecond - 1) / time.Millisecond)
}

// open begins a request. It is written when its message has come.
func (s *Session) open(o *frame.Out, f *frame.Frame) {
	c := s.newCall(call{
		first: f.Stream, n: max(len(f.Grants), 1), unary: f.Unary,
		method: f.Method, metadata: f.Metadata, waits: f.FollowsData,
		correlation: int64(f.Stream),
		timeout:     millis(f.Deadline),
	}, requested, f.Grants)
	c.setSettings(f.Grants)
	if c.unary {
		c.keep(f.Payload)
	}
	if c.unary || c.waits {
		return
	}
	c.payload = f.Payload
	s.writeRequest(o, c)
	c.payload = nil
}

// writeRequest writes a request, or fails it if it can't be written.
func (s *Session) writeRequest(o *frame.Out, c *call) {
	var w packOptions
	err := w.read(c.metadata)
	p := c.payload
	if !c.msg.IsZero() {
		p = c.msg.Bytes()
	}
	w.settings, w.auth = !c.unary, s.out.token
	if err == nil && c.messages > 1 {
		err = codef(status.InvalidArgument, "%d requests in a call, which takes one", c.messages)
	}
	if err == nil {
		err = w.message(c.msg)
	}
	if err == nil {
		err = s.pack(o, c, &w, p, nil, func(b []byte) []byte { return appendRequest(b, c, &w) })
	}
	if err != nil {
		s.failRequest(c, err)
		return
	}
	s.out.token = nil
	s.mu.Lock()
	c.written = true
	s.mu.Unlock()
	c.method, c.metadata = "", nil
}

// failRequest tells the kernel that a request was not written, and why.
func (s *Session) failRequest(c *call, err error) {
	c.msg.Release()
	c.msg = pool.Message{}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := uint64(0)
	s.each(c, func(_ int, st *stream) {
		if first == 0 && !st.canceled {
			first = st.id
		}
		s.table.remove(st)
	})
	if first == 0 {
		return
	}
	s.emitEvent(frame.Frame{Kind: frame.Reject, Stream: first, Code: codeOfPack(err), Reason: err.Error()})
}

// codeOfPack is the code of what can't be packed.
func codeOfPack(err error) status.Code {
	if ce, ok := err.(*codeError); ok { //nolint:errorlint // never wrapped
		return ce.code
	}
	return status.InvalidArgument
}

// pack appends a packet. meta appends the first fields of its meta, and p is its message.
// If via is not nil the packet is wrapped in a data frame of that stream.
func (s *Session) pack(o *frame.Out, c *call, w *packOptions, p []byte, via *stream, meta func([]byte) []byte) error {
	if w.attachment > len(p) {
		return codef(status.InvalidArgument, "%s is %d, the message has %d bytes", KeyAttachmentSize, w.attachment, len(p))
	}
	body, attachment := p[:len(p)-w.attachment], p[len(p)-w.attachment:]
	packed := w.compress != compressNone && !w.packed
	if packed {
		var err error
		if s.out.body, err = compress(s.out.body[:0], w.compress, body); err != nil {
			return err
		}
		body = s.out.body
	}
	if w.checksum == checksumCRC32C {
		sum := checksum(body)
		w.sum = sum[:]
	}
	s.out.meta = appendCommon(meta(s.out.meta[:0]), c, w)
	size := len(s.out.meta) + len(body) + len(attachment)
	most := s.peerBody
	if via != nil {
		most -= maxDataHead
	}
	if len(s.out.meta) > maxRPCMeta || size > most {
		return codef(status.TooLarge, "packet of %d bytes, %d of them meta, the peer takes %d", size, len(s.out.meta), most)
	}
	if via != nil {
		o.Buf = appendDataHead(o.Buf, via.peer, w.source, headerLen+size, false)
	}
	o.Buf = appendHeader(o.Buf, magicRPC, len(s.out.meta), size-len(s.out.meta))
	o.Buf = append(o.Buf, s.out.meta...)
	s.out.meta = reuse(s.out.meta, keptBytes)
	s.payload(o, c, packed, p, body, attachment)
	return nil
}

// payload appends the message: by reference if the session owns it and has not compressed
// it.
func (s *Session) payload(o *frame.Out, c *call, packed bool, p, body, attachment []byte) {
	switch {
	case packed:
		o.Buf = append(append(o.Buf, body...), attachment...)
		s.out.body = reuse(s.out.body, keptBytes)
	case c.msg.IsZero():
		o.Buf = append(o.Buf, p...)
	default:
		o.Payload(p)
		o.Hold(c.msg)
		c.msg = pool.Message{}
		return
	}
	c.msg.Release()
	c.msg = pool.Message{}
}

// appendRequest appends RpcRequestMeta.
func appendRequest(b []byte, c *call, w *packOptions) []byte {
	service, method := splitMethod(c.method)
	size := sizeBytes(len(service)) + sizeBytes(len(method))
	for i, has := range w.hasLog {
		if has {
			size += 1 + protowire.SizeVarint(uint64(w.log[i]))
		}
	}
	if w.requestID != "" {
		size += sizeBytes(len(w.requestID))
	}
	if c.timeout > 0 {
		size += 1 + protowire.SizeVarint(uint64(c.timeout))
	}
	b = protowire.AppendTag(b, fRequest, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendBytes(b, fService, service)
	b = appendBytes(b, fMethod, method)
	for i, has := range w.hasLog {
		if has {
			b = appendVarint(b, fLogID+protowire.Number(i), uint64(w.log[i]))
		}
	}
	if w.requestID != "" {
		b = appendBytes(b, fRequestID, w.requestID)
	}
	if c.timeout > 0 {
		b = appendVarint(b, fTimeout, uint64(c.timeout))
	}
	return b
}

// appendResponse appends RpcResponseMeta.
func appendResponse(b []byte, errno int, text string) []byte {
	size := 1 + protowire.SizeVarint(uint64(errno))
	if text != "" {
		size += sizeBytes(len(text))
	}
	b = protowire.AppendTag(b, fResponse, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendVarint(b, fErrorCode, uint64(errno))
	if text != "" {
		b = appendBytes(b, fErrorText, text)
	}
	return b
}

// appendCommon appends the fields that requests and answers share. Like brpc it writes
// some of them even if they are zero.
func appendCommon(b []byte, c *call, w *packOptions) []byte {
	b = appendVarint(b, fCompress, uint64(w.compress))
	b = appendVarint(b, fCorrelation, uint64(c.correlation))
	if w.attachment > 0 {
		b = appendVarint(b, fAttachment, uint64(w.attachment))
	}
	if len(w.auth) > 0 {
		b = appendBytes(b, fAuth, w.auth)
	}
	if w.settings {
		b = appendSettings(b, c.first, c.n, c.feedback, c.writable)
	}
	b = appendUserFields(b, c.metadata)
	b = appendVarint(b, fContent, uint64(w.content))
	b = appendVarint(b, fChecksum, uint64(w.checksum))
	return appendBytes(b, fSum, w.sum)
}

// cancel ends a stream of ours whose request has no answer yet. Once all streams of the
// request are canceled they stay in the table until the answer, to reset what it
// establishes. It returns false if st has its answer.
func (s *Session) cancel(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := st.call.Load()
	switch {
	case c == nil || !st.is(requested):
		return false
	case c.unary || !c.written && st.id == c.first:
		if c.written {
			s.lateFrames++
			s.owed.add(c.correlation)
		}
		s.each(c, func(_ int, st *stream) { s.table.remove(st) })
		c.msg.Release()
		c.msg = pool.Message{}
	case !st.canceled:
		st.canceled, st.givenUp = true, true
		s.table.givenUp++
		if c.canceled++; c.canceled == c.n {
			s.each(c, func(_ int, st *stream) { s.emitEnd(s.await(st, requested)) })
		}
	}
	return true
}

// accept handles the kernel's Accept. A call is answered later, when its reply has ended.
func (s *Session) accept(o *frame.Out, st *stream, f *frame.Frame) {
	c := st.call.Load()
	if !st.is(offered) || !st.isFirst() || c.handlerAccepted {
		return
	}
	c.handlerAccepted = true
	c.metadata = f.Metadata
	if c.unary {
		c.keep(f.Payload)
		return
	}
	c.accepted = min(max(len(f.Grants), 1), c.n)
	c.setSettings(f.Grants)
	c.setLimits(f.Grants)
	if c.waits = f.FollowsData; c.waits {
		return
	}
	c.payload = f.Payload
	s.writeAccept(o, c)
	c.payload = nil
}

// keep copies the message of a call from its Open or Accept.
func (c *call) keep(p []byte) {
	if len(p) > 0 {
		c.payload = append([]byte(nil), p...)
		c.messages++
	}
}

// writeAccept writes the answer that establishes streams. It names all streams of the
// request, because brpc's clients look up as many as they requested without a check of
// how many the answer has. Those that were not accepted are reset after it.
func (s *Session) writeAccept(o *frame.Out, c *call) {
	st := s.find(c.first)
	if st == nil {
		return
	}
	w := packOptions{settings: true, source: int64(c.first)}
	err := w.read(c.metadata)
	p := c.payload
	if !c.msg.IsZero() {
		p = c.msg.Bytes()
	}
	if err == nil {
		err = s.pack(o, c, &w, p, st, func(b []byte) []byte { return appendResponse(b, 0, "") })
	}
	if err != nil {
		s.emitEvent(frame.Frame{Kind: frame.Reset, Stream: st.id, Code: codeOfPack(err), Reason: err.Error()})
		s.writeFailure(o, c, codeOfPack(err), err.Error(), false)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o.Buf = append(o.Buf, c.deferred...)
	c.deferred = nil
	s.each(c, func(i int, st *stream) {
		st.call.Store(nil)
		st.young = o.Now().Add(s.settle)
		switch {
		case i >= c.accepted, st.canceled:
			if !st.ended {
				o.Buf = appendRST(o.Buf, st.peer)
			}
			s.emitEnd(s.await(st, discarding))
		case st.ended:
			s.emitEnd(s.await(st, closeSent))
		default:
			st.phase.Store(uint32(established))
			st.setWindow(c.window(i))
			s.sent(o, st, 0) // the deferred messages may have filled the window
			s.greet(o, st)
		}
		if st.ended {
			s.holdEnd(o, st)
		}
	})
}

// reject refuses a request, or cancels one of its further streams.
func (s *Session) reject(o *frame.Out, st *stream, f *frame.Frame) {
	c := st.call.Load()
	code, reason, notProcessed := f.Code, f.Reason, f.Kind == frame.Reject && f.NotProcessed
	switch {
	case c == nil || !st.is(offered):
	case c.unary || st.isFirst():
		if f.Kind == frame.Reject {
			c.metadata = f.Metadata
		}
		s.writeFailure(o, c, code, reason, notProcessed)
	default:
		s.mu.Lock()
		st.canceled = true
		s.mu.Unlock()
	}
}

// writeFailure answers a request with an error. Streams of it that the kernel has
// established meanwhile end too.
func (s *Session) writeFailure(o *frame.Out, c *call, code status.Code, reason string, notProcessed bool) {
	if code == status.OK {
		code = status.Internal
	}
	c.msg.Release()
	c.msg, c.payload = pool.Message{}, nil
	errno := errnoOf(code, notProcessed)
	if errno == eNoMethod && c.noPackage { // brpc then looks for the service only
		errno = eNoService
	}
	w := packOptions{source: noStream}
	var via *stream
	if !c.unary {
		via = s.find(c.first)
	}
	failed := func(b []byte) []byte { return appendResponse(b, errno, errorText(errno, reason)) }
	if s.pack(o, c, &w, nil, via, failed) != nil { // metadata that is too long
		c.metadata = nil
		_ = s.pack(o, c, &w, nil, via, failed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(c, func(i int, st *stream) {
		if c.handlerAccepted && !c.unary && i > 0 && i < c.accepted && !st.canceled {
			s.emitEvent(frame.Frame{Kind: frame.Reset, Stream: st.id, Code: code, Reason: cut(reason)})
		}
		s.table.remove(st)
	})
}

// respond writes the answer to a call, whose reply has ended.
func (s *Session) respond(o *frame.Out, c *call, f *frame.Frame) {
	code, reason := f.Code, f.Reason
	c.metadata = slices.Concat(c.metadata, f.Metadata)
	if code == status.OK && c.messages > 1 {
		code, reason = status.Internal, fmt.Sprintf("%d replies to a call, which takes one", c.messages)
	}
	if code != status.OK {
		s.writeFailure(o, c, code, reason, false)
		return
	}
	var w packOptions
	err := w.read(c.metadata)
	p := c.payload
	if !c.msg.IsZero() {
		p = c.msg.Bytes()
	}
	if err == nil {
		err = w.message(c.msg)
	}
	if err == nil {
		err = s.pack(o, c, &w, p, nil, func(b []byte) []byte { return appendResponse(b, 0, "") })
	}
	if err != nil {
		s.writeFailure(o, c, codeOfPack(err), err.Error(), false)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.table.streams[c.first]; st != nil {
		s.table.remove(st)
	}
}
