package triple

import (
	"strings"
	"time"

	"github.com/sluicerpc/sluice/status"
)

// What Dubbo's Triple has beyond gRPC, where Protocol.Dubbo asks for it. Its Rust servers write
// these fields, and programs of theirs print them.

// okMessage is the grpc-message of such a server with the status OK.
const okMessage = "poll trailer successfully."

// dateLayout is the form of a date (RFC 9110, section 5.6.7).
const dateLayout = "Mon, 02 Jan 2006 15:04:05 GMT"

// dubboAnswer writes what the headers of an answer have besides.
func (h *headerWriter) dubboAnswer() {
	h.once("date", time.Now().UTC().Format(dateLayout))
}

// dubboTrailers writes what trailers have besides.
func (h *headerWriter) dubboTrailers(st *stream, c status.Code) {
	if st.is(headed) { // else the same fields stand before
		h.field("content-type", st.contentType())
	}
	if st.is(headed) || c != status.Unimplemented {
		h.field("grpc-accept-encoding", acceptEncoding)
	}
}

// isOwn reports whether a field is gRPC's own, and no metadata otherwise.
func isOwn(name string) bool {
	return name == "content-type" || strings.HasPrefix(name, "grpc-") && !strings.HasSuffix(name, binSuffix)
}
