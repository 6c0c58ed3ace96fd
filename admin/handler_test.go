package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/admin"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// stuckScenario has one stream that waits for its reader, traffic, and a hostile name.
func stuckScenario(t *testing.T, o *admin.Options) (s *scenario, id string) {
	t.Helper()
	s = newScenario(t, o, 300)
	c := s.dial()
	s.idle(c, 300)
	s.pages.AddClient("backend", c)
	s.traffic(c, 2)
	s.stuck(c)
	s.open(c, hostile)
	s.failure()
	testkit.Eventually(t, "the reader to be blocked", func() bool {
		var rows []streamRow
		s.rows("/streams?on=reader", &rows)
		if len(rows) == 1 {
			id = rows[0].ID
		}
		return len(rows) == 1
	})
	return s, id
}

type streamRow struct {
	ID, Method, State string
	BlockedOn         string  `json:"blocked_on"`
	BlockedBy         string  `json:"blocked_by"`
	Mailbox           int     `json:"mailbox_messages"`
	Received          uint64  `json:"messages_received"`
	Sent              uint64  `json:"messages_sent"`
	Rate              float64 `json:"messages_per_s"`
	Conn              uint64
}

func (r *streamRow) messages() uint64 { return r.Sent + r.Received }

// rows decodes the rows of a page's JSON, and returns how many match.
func (s *scenario) rows(path string, rows any) (matching int) {
	s.t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	a := s.get(path + sep + "format=json")
	var d struct {
		Schema int
		Page   string
		Data   struct {
			Matching int
			Rows     json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(a.body), &d); err != nil || d.Schema != 1 || !strings.HasPrefix(path, d.Page) {
		s.t.Fatalf("%s: %v in %.200s", path, err, a.body)
	}
	if err := json.Unmarshal(d.Data.Rows, rows); err != nil {
		s.t.Fatal(err)
	}
	return d.Data.Matching
}

// Every page has every form.
func TestForms(t *testing.T) {
	s, id := stuckScenario(t, nil)
	conn, _, _ := strings.Cut(id, "-")
	for _, path := range []string{"/", "/streams", "/streams/" + id, "/conns", "/conns/" + conn, "/fleets", "/loops", "/closed", "/methods", "/config"} {
		html := s.get(path, "Accept: text/html,*/*")
		if html.code != http.StatusOK || !html.contains("<!DOCTYPE html>") || !strings.HasSuffix(html.body, "</html>\n") || html.contains("<script>document") {
			t.Errorf("%s as HTML: %d, %.300s", path, html.code, html.body)
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(html.body, -1) {
			if u, err := url.Parse(m[1]); err != nil || u.Host != "" || strings.HasPrefix(m[1], "/") {
				t.Errorf("%s leads to %s: it can't be mounted anywhere", path, m[1])
			}
		}
		text := s.get(path)
		if text.code != http.StatusOK || text.contains("<") && !text.contains("</td>") || strings.ContainsAny(text.body, "\x1b\u202e") {
			t.Errorf("%s as text: %d, %q", path, text.code, text.body)
		}
		data := s.get(path + "?format=json")
		if !json.Valid([]byte(data.body)) || data.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s as JSON: %.300s", path, data.body)
		}
		if a := s.get(path + "?format=xml"); a.code != http.StatusBadRequest {
			t.Errorf("%s as XML: %d", path, a.code)
		}
		for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Resource-Policy"} {
			if text.header.Get(name) == "" {
				t.Errorf("%s has no %s", path, name)
			}
		}
	}
	for _, path := range []string{"/nothing", "/conns/99999", "/streams/99999-1", "/debug/other"} {
		if a := s.get(path); a.code != http.StatusNotFound {
			t.Errorf("%s: %d", path, a.code)
		}
	}
	for _, path := range []string{"/conns/x", "/streams/7", "/streams?sort=x", "/streams?limit=-1", "/streams?conn=x", "/conns?offset=x", "/methods?sort=id"} {
		if a := s.get(path); a.code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, a.code)
		}
	}
}

// The overview says at once who is blocked, on whom, and since when.
func TestOverviewNamesWhoBlocks(t *testing.T) {
	s, id := stuckScenario(t, nil)
	line := regexp.MustCompile(`2 streams blocked for 1 s or longer\. The first is [0-9-]+ \(shop\.Orders/Watch\): it has waited for [\d.]+ s, since \d\d:\d\d:\d\d, for (this program|the program at 127\.0\.0\.1:\d+), to read shop\.Orders/Watch\.\n`)
	testkit.Eventually(t, "the overview to name it", func() bool { return line.MatchString(s.get("/").body) })
	var d struct {
		Data struct {
			Blocked []struct {
				On    string `json:"blocked_on"`
				First string
			}
			Stuck int `json:"streams_blocked_1s"`
		}
	}
	if err := json.Unmarshal([]byte(s.get("/?format=json").body), &d); err != nil {
		t.Fatal(err)
	}
	named := false
	for _, b := range d.Data.Blocked {
		named = named || b.On == "reader" && b.First == id
	}
	if !named || d.Data.Stuck != 2 {
		t.Errorf("%+v, want %s", d.Data, id)
	}
	if a := s.get("/streams/" + id); !a.contains("It is blocked on reader for ") || !a.contains("Look at the handler") {
		t.Errorf("%s", a.body)
	}
}

func TestSortFilterAndPages(t *testing.T) {
	s, id := stuckScenario(t, nil)
	var rows []streamRow
	if n := s.rows("/streams?endpoint=shop&q=IDLE&limit=20&offset=290", &rows); n != 300 || len(rows) != 10 || rows[0].Method != "idle" {
		t.Errorf("%d match, %d of them: %+v", n, len(rows), rows)
	}
	testkit.Eventually(t, "a busy stream to be the first", func() bool {
		s.rows("/streams?sort=messages&endpoint=shop", &rows)
		return rows[0].Method == "echo" && len(rows) == 200
	})
	for i := range rows[1:] {
		if n, next := rows[i].messages(), rows[i+1].messages(); n < next {
			t.Errorf("row %d has %d messages, the next %d", i, n, next)
		}
	}
	if s.rows("/streams?sort=messages&up=1", &rows); rows[0].messages() != 0 {
		t.Errorf("the other way round the first is %+v", rows[0])
	}
	if s.rows("/streams?sort=mailbox", &rows); rows[0].ID != id || rows[0].BlockedOn != "reader" || rows[0].Mailbox == 0 || rows[0].BlockedBy != "this program, to read shop.Orders/Watch" {
		t.Errorf("%+v", rows[0])
	}
	if n := s.rows("/streams?on=any&endpoint=shop", &rows); n < 1 || rows[0].ID != id {
		t.Errorf("%d are blocked on anything: %+v", n, rows)
	}
	if s.rows("/streams?method="+url.QueryEscape(hostile)+"&state=opening", &rows); len(rows) != 2 || rows[0].Method != hostile || rows[0].BlockedOn != "" {
		t.Errorf("%+v", rows)
	}
	if n := s.rows("/streams?q=what+none+has", &rows); n != 0 || len(rows) != 0 {
		t.Errorf("%d match", n)
	}
	testkit.Eventually(t, "rates to be known", func() bool {
		s.rows("/streams?sort=rate&endpoint=shop", &rows)
		return rows[0].Method == "echo" && rows[0].Rate > 1
	})
	var conns []struct {
		ID      uint64
		Streams int
	}
	if n := s.rows("/conns?endpoint=shop&sort=streams&q=127", &conns); n != 1 || conns[0].Streams < 304 {
		t.Errorf("%d: %+v", n, conns)
	}
}

// A JSON row has every figure that a Snapshot has.
func TestSchemaHasEveryFigure(t *testing.T) {
	s, id := stuckScenario(t, nil)
	conn, _, _ := strings.Cut(id, "-")
	for path, info := range map[string]any{"/streams/" + id: kernel.StreamInfo{}, "/conns/" + conn: kernel.ConnInfo{}} {
		var d struct{ Data map[string]any }
		if err := json.Unmarshal([]byte(s.get(path+"?format=json").body), &d); err != nil {
			t.Fatal(err)
		}
		typ := reflect.TypeOf(info)
		for i := range typ.NumField() {
			name := snake(typ.Field(i).Name)
			found := false
			for _, unit := range []string{"", "_s", "_bytes"} {
				_, ok := d.Data[name+unit]
				found = found || ok
			}
			if !found {
				t.Errorf("%s has no %s", path, name)
			}
		}
	}
}

// snake turns MessagesSent into messages_sent.
func snake(name string) string {
	switch name {
	case "TLS", "RTT", "ID":
		return strings.ToLower(name)
	}
	return strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "${1}_$2"))
}

// What comes from another origin, or by a name that may have been pointed here, is refused.
func TestOtherOriginsAreRefused(t *testing.T) {
	s := newScenario(t, &admin.Options{Hosts: []string{"ops.example"}, Token: token}, 0)
	port := s.url[strings.LastIndexByte(s.url, ':'):]
	for _, c := range []struct {
		headers []string
		code    int
	}{
		{nil, 200},
		{[]string{"Host: localhost" + port}, 200},
		{[]string{"Host: [::1]" + port}, 200},
		{[]string{"Host: OPS.example"}, 200},
		{[]string{"Host: evil.example" + port}, 421},
		{[]string{"Host: 127.0.0.1.evil.example"}, 421},
		{[]string{"Host: localhost.evil.example"}, 421},
		{[]string{"Origin: http://evil.example"}, 403},
		{[]string{"Origin: null"}, 403},
		{[]string{"Origin: " + s.url}, 200},
		{[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403},
		{[]string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}, 403},
		{[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200}, // a link
		{[]string{"Sec-Fetch-Site: same-origin"}, 200},
	} {
		for _, path := range []string{"/", "/healthz", "/static/live.js"} {
			if a := s.get(path, c.headers...); a.code != c.code {
				t.Errorf("%s with %q: %d, want %d", path, c.headers, a.code, c.code)
			}
		}
	}
	bearer := "Authorization: Bearer " + token
	for _, headers := range [][]string{
		{bearer, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, {bearer, "Origin: http://evil.example"},
	} {
		if a := s.ask(http.MethodPost, "/actions/drain", "server=shop", headers...); a.code != http.StatusForbidden {
			t.Errorf("a form of another origin: %d", a.code)
		}
	}
}

// Whatever changes something, and profiles, need the token.
func TestToken(t *testing.T) {
	level := new(slog.LevelVar)
	s, id := stuckScenario(t, &admin.Options{Token: token, Level: level})
	off := newScenario(t, nil, 0)
	conn, _, _ := strings.Cut(id, "-")
	for _, c := range []struct{ path, form string }{
		{"/actions/reset", "stream=" + id}, {"/actions/close-conn", "conn=" + conn}, {"/actions/drain-conn", "conn=" + conn},
		{"/actions/trace", "conn=" + conn + "&seconds=0.1"}, {"/actions/level", "level=DEBUG"}, {"/actions/drain", "server=shop"},
		{"/debug/pprof/", ""}, {"/debug/pprof/heap", ""}, {"/debug/pprof/profile?seconds=0.1", ""}, {"/debug/pprof/cmdline", ""}, {"/login", ""},
	} {
		method := http.MethodGet
		if c.form != "" {
			method = http.MethodPost
			if a := s.get(c.path, "Authorization: Bearer "+token); a.code != http.StatusMethodNotAllowed {
				t.Errorf("GET %s: %d", c.path, a.code)
			}
		}
		if a := s.ask(method, c.path, c.form); a.code != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s without the token: %d", c.path, a.code)
		}
		for _, wrong := range []string{"Bearer ", "Bearer x" + token, "Basic Og==", token} {
			if a := s.ask(method, c.path, c.form, "Authorization: "+wrong); a.code != http.StatusUnauthorized {
				t.Errorf("%s with %q: %d", c.path, wrong, a.code)
			}
		}
		if a := off.ask(method, c.path, c.form, "Authorization: Bearer "); a.code != http.StatusForbidden {
			t.Errorf("%s where there is no token: %d", c.path, a.code)
		}
	}
	if level.Level() != slog.LevelInfo || len(s.srv.Conns()) == 0 {
		t.Error("something has changed")
	}
	if a := s.get("/config", "Accept: text/html"); a.contains("<form method=\"post\"") || !a.contains("Unlock") {
		t.Error("a page shows forms to who has no token")
	}
	if _, err := admin.NewHandler(&admin.Options{Token: "short"}); err == nil {
		t.Error("a token of 5 bytes was taken")
	}
	if _, err := admin.NewHandler(&admin.Options{Private: true}); err == nil {
		t.Error("private pages without a token")
	}
}

func TestActions(t *testing.T) {
	level := new(slog.LevelVar)
	s, id := stuckScenario(t, &admin.Options{Token: token, Level: level})
	conn, _, _ := strings.Cut(id, "-")
	do := func(name, form string, code int, want string) answer {
		t.Helper()
		a := s.ask(http.MethodPost, "/actions/"+name, form, "Authorization: Bearer "+token)
		if a.code != code || !a.contains(want) {
			t.Errorf("%s: %d %s, want %d %s", name, a.code, a.body, code, want)
		}
		return a
	}
	do("reset", "stream="+id, 200, "Stream "+id+" was reset.")
	testkit.Eventually(t, "the reset stream to be among the closed", func() bool { return s.get("/closed?q=cancelled").contains("shop.Orders/Watch") })
	do("reset", "stream="+id, 404, "is not open")
	do("reset", "stream=x", 400, "a dash")
	do("level", "level=warn", 200, "The level is WARN.")
	if level.Level() != slog.LevelWarn {
		t.Errorf("the level is %v", level.Level())
	}
	do("level", "level=loud", 400, "DEBUG")
	trace := do("trace", "conn="+conn+"&seconds=0.2", 200, "DATA")
	if trace.contains("\x1b") {
		t.Error("the hostile name is in the trace as it is")
	}
	for _, seconds := range []string{"0", "31", "x", "NaN"} {
		do("trace", "conn="+conn+"&seconds="+seconds, 400, "up to 30")
	}
	do("nothing", "a=b", 404, "no such action")
	do("drain-conn", "conn="+conn, 200, "ends with its last stream")
	if a := s.get("/conns/" + conn); !a.contains("draining") {
		t.Errorf("%s", a.body)
	}
	do("close-conn", "conn="+conn, 200, "was closed")
	testkit.Eventually(t, "the closed connection to be among the closed", func() bool {
		return s.get("/closed?format=json").contains(`"id":` + conn + `,"peer"`)
	})
	if s.get("/readyz").code != http.StatusOK {
		t.Error("not ready before the drain")
	}
	do("drain", "server=backend", 404, "no such server")
	do("drain", "server=shop", 200, "shop drains, for 30 s at most")
	testkit.Eventually(t, "the server to drain", func() bool { return s.get("/readyz").code == http.StatusServiceUnavailable })
	if a := s.get("/healthz"); a.code != http.StatusOK {
		t.Errorf("a server that drains is healthy: %d", a.code)
	}
}

func TestProfiles(t *testing.T) {
	s := newScenario(t, &admin.Options{Token: token}, 0)
	auth := "Authorization: Bearer " + token
	if a := s.get("/debug/pprof/goroutine?debug=1", auth); a.code != 200 || !a.contains("goroutine profile:") {
		t.Errorf("%d %.100s", a.code, a.body)
	}
	for _, path := range []string{"/debug/pprof/heap?gc=1", "/debug/pprof/profile?seconds=0.1", "/debug/pprof/trace?seconds=0.05"} {
		a := s.get(path, auth)
		if a.code != 200 || len(a.body) < 100 || !strings.Contains(a.header.Get("Content-Disposition"), "attachment") {
			t.Errorf("%s: %d, %d bytes", path, a.code, len(a.body))
		}
	}
	if a := s.get("/debug/pprof/", auth); !a.contains("goroutine") {
		t.Errorf("%s", a.body)
	}
	for path, code := range map[string]int{"/debug/pprof/nothing": 404, "/debug/pprof/profile?seconds=500": 400, "/debug/pprof/profile?seconds=x": 400} {
		if a := s.get(path, auth); a.code != code {
			t.Errorf("%s: %d, want %d", path, a.code, code)
		}
	}
	if _, pattern := http.DefaultServeMux.Handler(httptest.NewRequest(http.MethodGet, "/debug/pprof/", nil)); pattern != "" {
		t.Errorf("the default mux serves %q: whoever imports the package shows its profiles", pattern)
	}
}

// Private pages need the token, but what watches over the process does not.
func TestPrivate(t *testing.T) {
	s := newScenario(t, &admin.Options{Token: token, Private: true}, 0)
	for path, code := range map[string]int{"/": 401, "/streams": 401, "/static/live.js": 401, "/?format=events": 401, "/healthz": 200, "/readyz": 200, "/version": 200} {
		if a := s.get(path); a.code != code {
			t.Errorf("%s: %d, want %d", path, a.code, code)
		}
	}
	if a := s.get("/", "Authorization: Bearer "+token); a.code != 200 {
		t.Errorf("with the token: %d", a.code)
	}
}

func TestHealth(t *testing.T) {
	failure := errors.New("the database is away")
	var ready error
	s := newScenario(t, &admin.Options{Ready: func(context.Context) error { return ready }}, 0)
	if a := s.get("/readyz"); a.code != 200 || a.body != "ready\n" {
		t.Errorf("%+v", a)
	}
	ready = failure
	if a := s.get("/readyz"); a.code != 503 || !a.contains(failure.Error()) {
		t.Errorf("%+v", a)
	}
	if a := s.get("/version"); !a.contains("go") || !a.contains(runtime.Version()) {
		t.Errorf("%+v", a)
	}
	if a := s.get("/version?format=json"); !a.contains(`"system":"` + runtime.GOOS) {
		t.Errorf("%+v", a)
	}
}

// badError is an error that can't say what it is.
type badError struct{}

func (badError) Error() string { panic("secret") }

// A function of the program's that panics is not ready, and one that does not return holds up its own
// request.
func TestReadyThatFails(t *testing.T) {
	release := make(chan struct{})
	var ready func() error
	s := newScenario(t, &admin.Options{Ready: func(context.Context) error { return ready() }}, 0)
	for name, f := range map[string]func() error{
		"panics":       func() error { panic("secret") },
		"a bad error":  func() error { return badError{} },
		"an empty one": func() error { return errors.New("") },
	} {
		ready = f
		if a := s.get("/readyz"); a.code != 503 || a.body == "" || a.contains("secret") {
			t.Errorf("%s: %+v", name, a)
		}
	}
	asked := make(chan struct{})
	ready = func() error {
		close(asked)
		<-release
		return nil
	}
	answered := make(chan int)
	go func() { answered <- s.get("/readyz").code }()
	<-asked
	if a := s.get("/healthz"); a.code != 200 {
		t.Errorf("%+v", a)
	}
	close(release)
	if code := <-answered; code != 200 {
		t.Errorf("when it has returned: %d", code)
	}
}

// Secrets are in no form of the page.
func TestConfigHidesSecrets(t *testing.T) {
	s := newScenario(t, &admin.Options{Token: token}, 0)
	secret := "the client's own secret"
	c, err := kernel.NewClient("127.0.0.1:1", &kernel.ClientOptions{Token: []byte(secret), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.pages.AddClient("other", c)
	for _, form := range []string{"html", "text", "json"} {
		a := s.get("/config?format=" + form)
		if a.contains(secret) || a.contains(token) || a.contains("116 104 101") || !a.contains("(set, not shown)") || !a.contains("MaxStreams") {
			t.Errorf("%s: %s", form, a.body)
		}
	}
	s.pages.Remove("other")
	if a := s.get("/config"); a.contains("OTHER") {
		t.Error("a client that was removed is there still")
	}
}

// /closed and /methods have what a server's Observers tell, and a word on each server that tells the
// Handler nothing.
func TestObservedAndNot(t *testing.T) {
	s := newScenario(t, nil, 0)
	c := s.dial()
	st := s.open(c, "echo")
	if _, _, err := st.Accepted(context.Background()); err != nil { // else the end may be there before the handler
		t.Fatal(err)
	}
	st.Abort(status.Cancelled, "enough")
	_ = c.Close()
	_ = s.srv.Close() // waits until the Observer is told
	a := s.get("/methods?format=json")
	if !a.contains(`"method":"echo","open":0,"ended":1,"failed":1,"codes":{"CANCELLED":1}`) {
		t.Errorf("%s", a.body)
	}
	for name, o := range map[string]kernel.Observer{
		"told": kernel.Observers(deaf{}, s.pages), "deeper": kernel.Observers(deaf{}, kernel.Observers(s.pages, deaf{})),
		"none": nil, "another": deaf{}, "others": kernel.Observers(deaf{}, deaf{}),
	} {
		srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: o})
		if err != nil {
			t.Fatal(err)
		}
		s.pages.AddServer(name, srv)
		_ = srv.Close()
	}
	for _, path := range []string{"/closed", "/methods"} {
		a := s.get(path)
		for name, told := range map[string]bool{"shop": true, "told": true, "deeper": true, "none": false, "another": false, "others": false} {
			if a.contains("Nothing is known here of "+name+":") == told {
				t.Errorf("%s of %s: %s", path, name, a.body)
			}
		}
	}
}

// deaf is an Observer that does nothing. It can't be compared.
type deaf map[string]int

func (deaf) ConnBegun(*kernel.Conn)                        {}
func (deaf) ConnEnded(*kernel.Conn, kernel.ConnInfo)       {}
func (deaf) StreamBegun(*kernel.Stream)                    {}
func (deaf) StreamEnded(*kernel.Stream, kernel.StreamInfo) {}

// The pages can be mounted below any path.
func TestMounted(t *testing.T) {
	h, err := admin.NewHandler(nil)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/ops/", http.StripPrefix("/ops", h))
	for path, want := range map[string]string{"/ops/": `href="./static/style.css"`, "/ops/streams": `href="./static/style.css"`} {
		r := httptest.NewRequest(http.MethodGet, "http://localhost"+path+"?format=html", nil)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// Serve ends with its context, and with it who watches.
func TestServeEnds(t *testing.T) {
	h, err := admin.NewHandler(nil)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := admin.Listen(t.Context(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(ln.Addr().String(), "127.0.0.1:") {
		t.Errorf("without a host it listens on %v", ln.Addr())
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, ln) }()
	w := watch(t, "http://"+ln.Addr().String()+"/?format=events", "127.0.0.1")
	w.next()
	began := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("it took %v", d)
	}
	w.end()
	ln, err = admin.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := h.Serve(t.Context(), ln); err == nil {
		t.Error("a listener that is closed: no error")
	}
}
