package admin

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
)

// A configLens is the settings in force. No secret is among them.
type configLens struct {
	blind
	h *Handler
}

func (h *Handler) config(*http.Request) (lens, error) { return &configLens{h: h}, nil }

type settingsJSON struct {
	Name     string            `json:"name"`
	Settings map[string]string `json:"settings"`
}

func (l *configLens) view(*sample) *view {
	v := &view{Title: "Config"}
	data := []settingsJSON{}
	put := func(name, title string, rows []row) {
		d := settingsJSON{name, map[string]string{}}
		for _, r := range rows {
			d.Settings[r.Key] = r.Cells[1].Text
		}
		data = append(data, d)
		v.Tables = append(v.Tables, table{Key: fmt.Sprint("config", len(data)), Title: title, Rows: rows, Columns: []column{
			{Name: "setting", Class: "t", Width: 30}, {Name: "value", Class: "w", Width: 58},
		}})
	}
	put("process", "Process", l.h.process())
	for _, s := range l.h.all() {
		put(s.name, s.kind()+" "+s.name, s.settings())
		if s.srv != nil {
			v.Actions = append(v.Actions, action{
				Name: "drain", Label: "Drain " + s.name, Fields: []field{{Name: "server", Value: s.name}},
				Note: "It accepts no more connections, and ends with its last stream, after Limits.Drain at the latest.",
			})
		}
	}
	if l.h.opts.Level != nil {
		v.Actions = append(v.Actions, action{
			Name: "level", Label: "Set the level of logging", Note: "DEBUG, INFO, WARN or ERROR, with +1 or -1 behind it where needed.",
			Inputs: []field{{"level", l.h.opts.Level.Level().String(), "level"}},
		})
	}
	v.data = func() any {
		return struct {
			Rows []settingsJSON `json:"rows"`
		}{data}
	}
	return v
}

func setting(name, value string) row { return row{name, []cell{text(name), text(value)}} }

// process are the settings of the whole process.
func (h *Handler) process() []row {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	gogc := "off"
	if v := sample[0].Value; v.Kind() == metrics.KindUint64 && v.Uint64() < 1<<32 {
		gogc = count(v.Uint64()) + " %"
	}
	memory := "none"
	if n := debug.SetMemoryLimit(-1); n < 1<<62 {
		memory = size(float64(n))
	}
	level := "admin.Options.Level is not set"
	if h.opts.Level != nil {
		level = h.opts.Level.Level().String()
	}
	token := "none: no actions, no profiles"
	if h.opts.Token != "" {
		token = hidden
	}
	return []row{
		setting("GOMAXPROCS", fmt.Sprintf("%d of %d processors", runtime.GOMAXPROCS(0), runtime.NumCPU())),
		setting("GOMEMLIMIT", memory), setting("GOGC", gogc), setting("level of logging", level),
		setting("admin token", token), setting("admin private", yes(h.opts.Private)), setting("admin hosts", cmp.Or(clean(strings.Join(h.opts.Hosts, " ")), "localhost and addresses")),
	}
}

const (
	hidden = "(set, not shown)" // a secret
	unset  = "default"          // what zero means: the protocol's, or what is more general
)

// settings are the options of a server, client or fleet.
func (s *source) settings() []row {
	switch {
	case s.srv != nil:
		return settings("", reflect.ValueOf(s.srv.Options()))
	case s.fleet != nil:
		return settings("", reflect.ValueOf(s.fleet.Options()))
	}
	return settings("", reflect.ValueOf(s.client.Options()))
}

// settings lists the fields of a struct of options, and of those in it.
func settings(prefix string, v reflect.Value) (rows []row) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		name, value := prefix+f.Name, v.Field(i)
		if f.Type.Kind() == reflect.Struct {
			rows = append(rows, settings(name+".", value)...)
			continue
		}
		rows = append(rows, setting(name, settingOf(f.Name, value.Interface())))
	}
	return rows
}

// settingOf writes a value. Of what it does not know it says no more than whether it is set:
// nothing that may hold a secret is printed.
func settingOf(name string, v any) string {
	switch x := v.(type) {
	case time.Duration:
		switch {
		case x >= 1<<60:
			return "Unlimited"
		case x == 0:
			return unset
		}
		return duration(x)
	case int:
		return intSetting(name, x)
	case bool:
		return yes(x)
	case float64:
		return fmt.Sprint(x)
	case *tls.Config:
		return tlsSetting(x)
	case []frame.Protocol:
		names := make([]string, len(x))
		for i, p := range x {
			names[i] = p.Name()
		}
		return strings.Join(names, ", ")
	case kernel.ConnType:
		return [...]string{"ConnSingle", "ConnPooled", "ConnShort"}[min(x, kernel.ConnShort)]
	}
	switch r := reflect.ValueOf(v); {
	case r.IsValid() && r.Kind() <= reflect.Uint64 && r.IsZero():
		return unset
	case r.IsValid() && r.Kind() <= reflect.Uint64: // a number with a name, such as a compression
		return fmt.Sprint(v)
	case !r.IsValid() || r.IsZero():
		return "not set"
	case strings.Contains(name, "Token"):
		return hidden
	}
	return "set"
}

func intSetting(name string, n int) string {
	switch {
	case n == 0:
		return unset
	case n == kernel.Unlimited:
		return "Unlimited"
	case n == kernel.None:
		return "None"
	case n >= 1<<14 && !strings.Contains(name, "Conns") && !strings.Contains(name, "Streams"):
		return size(float64(n)) + " (" + count(n) + ")"
	}
	return count(n)
}

func tlsSetting(c *tls.Config) string {
	if c == nil {
		return "not set: connections are in plain text"
	}
	s := tls.VersionName(c.MinVersion) + " or later"
	if len(c.NextProtos) > 0 {
		s += ", ALPN " + strings.Join(c.NextProtos, " ")
	}
	switch c.ClientAuth {
	case tls.NoClientCert:
	case tls.RequireAndVerifyClientCert:
		s += ", clients must have a certificate that is verified"
	default:
		s += ", client certificates: " + c.ClientAuth.String()
	}
	if c.InsecureSkipVerify {
		s += ", the peer's certificate is NOT verified"
	}
	return s
}
