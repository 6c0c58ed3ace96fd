package triple

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/compress"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Every code of ours has a row, and every row a status that gRPC has.
func TestCodesAreTotal(t *testing.T) {
	for c := status.OK; c < status.FirstAppCode; c++ {
		known := !strings.HasPrefix(c.String(), "CODE_")
		if _, ok := codes[c]; ok != known {
			t.Errorf("%v: in the table %v", c, ok)
		}
		if s := StatusOf(c); known && s > status.Unauthenticated {
			t.Errorf("%v is sent as %v", c, s)
		}
		if c <= status.Unauthenticated && StatusOf(c) != c {
			t.Errorf("%v is sent as %v", c, StatusOf(c))
		}
	}
	for _, c := range []status.Code{17, 63, 255, 256, 70000} {
		if StatusOf(c) != c {
			t.Errorf("%v is sent as %v", c, StatusOf(c))
		}
	}
	for e := range http2Errors {
		e := http2Error(e)
		if e.String() == "" || e.code() == status.OK {
			t.Errorf("%v is %v", e, e.code())
		}
	}
	if e := http2Error(99); e.code() != status.Internal || e.String() != "HTTP/2 error 99" {
		t.Errorf("%v is %v", e, e.code())
	}
	for h := 100; h < 600; h++ {
		if ofHTTP(h) == status.OK {
			t.Errorf("HTTP %d is a success", h)
		}
	}
}

// Between sluice programs a reset has its code.
func TestResetsOfKin(t *testing.T) {
	peer, other := &Session{sluice: true}, &Session{}
	for c := range codes {
		if c == status.OK || c == status.Cancelled {
			continue
		}
		if got := peer.resetOf(c).code(); got != c {
			t.Errorf("%v became %v", c, got)
		}
		if e := other.resetOf(c); e > eHTTP11Required {
			t.Errorf("%v is sent as %v", c, e)
		}
	}
}

func TestTimeouts(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond,
		"6n": 6, "0n": 1, "99999999H": longest, "": 0, "00000001S": time.Second,
	} {
		if d, ok := parseTimeout(v); !ok || d != want {
			t.Errorf("%q: %v, %v", v, d, ok)
		}
	}
	for _, v := range []string{"1", "S", "123456789S", "-1S", "+1S", "1s", "1.5S", " 1S"} {
		if d, ok := parseTimeout(v); ok {
			t.Errorf("%q: %v", v, d)
		}
	}
	for d := time.Duration(1); d < 1<<61; d = d*3 + 1 {
		v := string(appendTimeout(nil, d))
		got, ok := parseTimeout(v)
		if !ok || len(v) > 9 || got < d || got-d > d/1000 {
			t.Errorf("%v: %q is %v, %v", d, v, got, ok)
		}
	}
}

func TestText(t *testing.T) {
	for _, v := range []string{"", "plain", "100%", "é", "a\r\nb", "\x00\xff%41"} {
		e := encodePercent(v, inMessage)
		if !isText(e) && e != "" {
			t.Errorf("%q is written as %q", v, e)
		}
		if got := decodePercent(e); got != v && v != "\x00\xff%41" {
			t.Errorf("%q came back as %q", v, got)
		}
	}
	if got := decodePercent("%zz%4"); got != "%zz%4" {
		t.Error(got)
	}
	for _, m := range []string{"p.S/M", "", "#7", "a b", "ü/%2F"} {
		if got, ok := methodOf("/" + encodePercent(m, inPath)); !ok || got != m {
			t.Errorf("%q came back as %q", m, got)
		}
	}
	for v, want := range map[string]string{"AP8=": "\x00\xff", "AP8": "\x00\xff", "": ""} {
		if got, ok := decodeBase64(v); !ok || got != want {
			t.Errorf("%q: %q, %v", v, got, ok)
		}
	}
}

// A message that is compressed comes back, and one that holds too much costs no more than
// the limit.
func TestCompression(t *testing.T) {
	var s Session
	p := bytes.Repeat([]byte("compress "), 1000)
	for _, c := range []pool.Compression{pool.Gzip, pool.Zstd} {
		m := pool.Copy(p)
		packed := s.Pack(m, c)
		if !pool.IsPacked(packed) || packed.Len() >= len(p) {
			t.Fatalf("%v: %d bytes", c, packed.Len())
		}
		u, err := s.Unpack(1, packed.Share(), len(p))
		if err != nil || !bytes.Equal(u.Bytes(), p) {
			t.Errorf("%v: %v", c, err)
		}
		u.Release()
		if _, err := s.Unpack(1, packed, len(p)-1); err != frame.ErrUnpacked {
			t.Errorf("%v beyond the limit: %v", c, err)
		}
		bomb := compress.Pack(c, nil, make([]byte, 8<<20))
		if _, err := s.Unpack(1, bomb, 1000); err != frame.ErrUnpacked {
			t.Errorf("%v, a bomb: %v", c, err)
		}
		m.Release()
	}
	for _, bad := range []string{"x", "\x1f\x8b", "\x1f\x8b\x08\x00", "\x28\xb5\x2f\xfd"} {
		if _, err := s.Unpack(1, pool.Copy([]byte(bad)), 1000); err == nil {
			t.Errorf("%q was unpacked", bad)
		}
	}
	if set := accepts("identity, gzip ,zstd,br"); set != compress.All {
		t.Errorf("accepts %b", set)
	}
}
