// Package strm is brpc's wire: calls (baidu_std, "PRPC") and streams ("STRM") of
// apache/brpc, as server and as client. It starts no goroutine. Its only I/O is in
// Protocol.Handshake, and it asks frame.Out for the time. docs/interop.md says what of
// sluice's API becomes what of brpc's.
//
// The facts here were read in brpc's sources at master 71871ee9 (August 2026, after
// 1.17.0), and seen in captured connections of its programs, which the tests replay.
//
// # Packets and frames
//
// A connection carries packets and frames in any order, each with a header of 12
// bytes, big endian: a magic, the size of the body, and the size of the meta at its
// start. brpc takes bodies of at most 64 MiB (its max_body_size).
//
//	"PRPC"  body_size  meta_size  RpcMeta          message  attachment
//	"STRM"  body_size  meta_size  StreamFrameMeta  data
//
// RpcMeta (src/brpc/policy/baidu_rpc_meta.proto), fields by number:
//
//	 1 request            1 service_name  2 method_name  3 log_id  4 trace_id
//	                      5 span_id  6 parent_span_id  7 request_id  8 timeout_ms
//	 2 response           1 error_code  2 error_text
//	 3 compress_type      0 none  1 snappy  2 gzip  3 zlib; of the message only
//	 4 correlation_id     comes back in the answer
//	 5 attachment_size    bytes at the end of the body
//	 7 authentication_data
//	 8 stream_settings    1 stream_id  2 need_feedback  3 writable  4 extra_stream_ids
//	 9 user_fields        a map of strings
//	10 content_type       0 pb  1 json  2 proto-json  3 proto-text
//	11 checksum_type      0 none  1 crc32c
//	12 checksum_value     crc32c of the compressed message, rotated right by 15, plus
//	                      0xa282ead8; four bytes, big endian
//	13 checksum_with_attachment
//
// StreamFrameMeta (src/brpc/streaming_rpc_meta.proto):
//
//	1 stream_id           the receiver's
//	2 source_stream_id    the sender's; an RST has none
//	3 frame_type          1 RST  2 CLOSE  3 DATA  4 FEEDBACK  0 is ignored
//	4 has_continuation    a further segment of this message follows
//	5 feedback            1 consumed_size: payload bytes taken in all
//
// # Streams
//
// A request with stream_settings asks for a stream, or for several. Its answer is
// wrapped: a whole packet is the data of one DATA frame for the first stream, from
// the server's stream or, if it has none, from -1. A plain answer means the same.
// The receiver of a stream's frames chooses its id, any int64; ours are the kernel's
// numbers, and belong to one connection.
//
// Each writer has a window of its own; need_feedback asks the reader to report what
// it has taken. A message may be sent while less than the window is unread, whatever
// its length. There is no half-close: CLOSE ends both directions and is answered by
// CLOSE, and that by an RST. An RST ends both directions at once and carries no code;
// it is answered by CLOSE. A frame for an unknown stream is answered by an RST, unless
// it is FEEDBACK or names no source stream.
//
// Right behind an answer brpc's programs lose frames: young.go says which, and what is done
// about it.
// A report of nothing says that its stream is connected; brpc takes no notice of it.
//
// # Bounds
//
// A body may be as long as the longest message that we take, 64 KiB of RpcMeta and 1
// KiB of StreamFrameMeta more. Beyond that, the connection ends, for packets and
// frames alike: we would have to skip what was announced, up to four gigabytes for
// twelve bytes of header. Where brpc logs what can't be read and goes on (a meta that
// does not parse, a meta longer than its body, data in a FEEDBACK), the connection
// ends too: the sides may disagree on where frames begin. A message that can't be
// unpacked fails its request alone. What must be complete before it can be read (a
// compressed request, one that asks for streams, the answer to that) is 1 GiB at most
// with its meta, the longest message there is.
//
// Messages above 64 KiB are sent in segments, between which other streams can write.
// One request opens at most 256 streams. Frames that precede an answer are kept up to
// 1 MiB and 1,024 of them. Streams that we have ended are kept until the peer has
// sent its last frame, as many as were open at once, at least 1,024; the oldest beyond
// that are forgotten, and then unknown. A thousand frames in a row without effect end
// the connection, as do a thousand segments of less than 32 bytes, or ten empty ones,
// in a row. One late answer to each call that was canceled is not counted, nor is the
// RST that answers a CLOSE of ours.
package strm
