package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// licences are the modules of others that a program with any of our packages, or one of our
// tests, has in it, with the licences of their LICENSE files. A licence that is not in allowed
// needs a decision before it is added.
var licences = map[string]string{
	"github.com/klauspost/compress":     "Apache-2.0 BSD-3-Clause MIT",
	"github.com/panjf2000/ants/v2":      "MIT",
	"github.com/panjf2000/gnet/v2":      "Apache-2.0",
	"github.com/pierrec/lz4/v4":         "BSD-3-Clause",
	"github.com/valyala/bytebufferpool": "MIT",
	"go.uber.org/goleak":                "MIT",
	"go.uber.org/multierr":              "MIT",
	"go.uber.org/zap":                   "MIT",
	"golang.org/x/sync":                 "BSD-3-Clause",
	"golang.org/x/net":                  "BSD-3-Clause",
	"golang.org/x/sys":                  "BSD-3-Clause",
	"golang.org/x/time":                 "BSD-3-Clause",
	"google.golang.org/protobuf":        "BSD-3-Clause",
	"gopkg.in/natefinch/lumberjack.v2":  "MIT",
	"pgregory.net/rapid":                "MPL-2.0",
}

// allowed are the licences under which a module may be linked. MPL-2.0 asks for the source of
// the module itself, and for nothing of the program around it.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "Unlicense"}

// marks are sentences that a licence has and others don't.
var marks = map[string]string{
	"Apache-2.0":   "Apache License Version 2.0, January 2004",
	"BSD-2-Clause": "Redistributions in binary form must reproduce the above copyright notice",
	"BSD-3-Clause": "may be used to endorse or promote products derived from this software without specific prior written permission",
	"GPL":          "GENERAL PUBLIC LICENSE Version",
	"ISC":          "Permission to use, copy, modify, and distribute this software for any purpose with or without fee is hereby granted",
	"MIT":          "Permission is hereby granted, free of charge, to any person obtaining a copy",
	"MPL-2.0":      "Mozilla Public License Version 2.0",
	"Unlicense":    "This is free and unencumbered software released into the public domain",
}

// licencesOf names the licences in a text, in order.
func licencesOf(text string) string {
	text = strings.Join(strings.Fields(strings.NewReplacer(", version 2.0", " Version 2.0", "and/or", "and").Replace(text)), " ")
	var found []string
	for name, mark := range marks {
		if strings.Contains(strings.ToLower(text), strings.ToLower(mark)) {
			found = append(found, name)
		}
	}
	if i := slices.Index(found, "BSD-2-Clause"); i >= 0 && slices.Contains(found, "BSD-3-Clause") {
		found = slices.Delete(found, i, i+1) // which has one condition more
	}
	slices.Sort(found)
	return strings.Join(found, " ")
}

// A dependency is a module that is linked, and where it is.
type dependency struct{ Path, Dir string }

// dependencies lists the modules of others that the packages and tests in dir's module have in
// them.
func dependencies(dir string, env ...string) (all []dependency, err error) {
	cmd := exec.Command("go", "list", "-test", "-deps", "-json=Module", "./...")
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOOS=linux", "GOWORK=off"), env...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, err
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct{ Module *dependency }
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if m := p.Module; m != nil && m.Path != module && !strings.HasPrefix(m.Path, module+"/") && !slices.Contains(all, *m) {
			all = append(all, *m)
		}
	}
}

// licence reads a module's licences.
func licence(m dependency) (string, error) {
	var text string
	names, err := os.ReadDir(m.Dir)
	if err != nil {
		return "", err
	}
	for _, e := range names {
		upper := strings.ToUpper(e.Name())
		if !e.IsDir() && (strings.HasPrefix(upper, "LICEN") || strings.HasPrefix(upper, "COPYING") || strings.HasPrefix(upper, "UNLICENSE")) {
			b, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
			if err != nil {
				return "", err
			}
			text += string(b) + "\n"
		}
	}
	return licencesOf(text), nil
}

func checkLicence(m dependency, found string) (bad []string) {
	if found == "" {
		bad = append(bad, fmt.Sprintf("%s: no licence that is known, in %s", m.Path, m.Dir))
	}
	for name := range strings.FieldsSeq(found) {
		if !slices.Contains(allowed, name) {
			bad = append(bad, fmt.Sprintf("%s: %s is not allowed", m.Path, name))
		}
	}
	return bad
}

// TestLicences compares the licences of the root module's dependencies with the table.
func TestLicences(t *testing.T) {
	all, err := dependencies(root(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range all {
		seen[m.Path] = true
		found, err := licence(m)
		if err != nil {
			t.Fatal(err)
		}
		report(t, checkLicence(m, found))
		if want, ok := licences[m.Path]; !ok || want != found {
			t.Errorf("%s is under %q; the table has %q", m.Path, found, want)
		}
	}
	for path := range licences {
		if !seen[path] {
			t.Errorf("licences: nothing needs %s any more", path)
		}
	}
}

// TestNestedModules looks at the modules inside the root module: what they are called, that
// they use the root module as it is beside them, that docs/release.md has them, and under what
// licences the modules are that they link, if those have been downloaded.
func TestNestedModules(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "release.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range nested(t) {
		t.Run(dir, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(root(t), dir, "go.mod"))
			if err != nil {
				t.Fatal(err)
			}
			report(t, checkNested(dir, string(text), string(page)))
			all, err := dependencies(filepath.Join(root(t), dir), "GOFLAGS=-mod=mod", "GOPROXY=off")
			if err != nil {
				t.Skipf("its modules were not downloaded: %v", err)
			}
			for _, m := range all {
				found, err := licence(m)
				if err != nil {
					t.Fatal(err)
				}
				report(t, checkLicence(m, found))
			}
		})
	}
}

// nested finds the directories of modules inside the root module.
func nested(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(root(t), func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.Name() != "go.mod" || filepath.Dir(p) == root(t):
			return nil
		}
		rel, err := filepath.Rel(root(t), filepath.Dir(p))
		dirs = append(dirs, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// checkNested looks at the go.mod of a nested module.
func checkNested(dir, gomod, page string) (bad []string) {
	up := strings.TrimSuffix(strings.Repeat("../", strings.Count(dir, "/")+1), "/")
	if !strings.Contains(gomod, "module "+module+"/"+dir+"\n") {
		bad = append(bad, dir+": the module must be called "+module+"/"+dir)
	}
	i := strings.Index(gomod, "replace "+module+" => ")
	if strings.Contains(gomod, module+" v0.0.0\n") && i < 0 || i >= 0 && strings.TrimRight(strings.Fields(gomod[i:])[3], "/") != up {
		bad = append(bad, fmt.Sprintf("%s: needs replace %s => %s until it requires a tag", dir, module, up))
	}
	if !strings.Contains(page, "`"+dir+"`") {
		bad = append(bad, dir+" is not in docs/release.md")
	}
	return bad
}

func TestLicencesFinds(t *testing.T) {
	for text, want := range map[string]string{
		"Apache License\n   Version 2.0, January 2004\n":                                 "Apache-2.0",
		"Redistributions in binary form must reproduce the above copyright notice, this": "BSD-2-Clause",
		"Redistributions in binary form must reproduce the above copyright notice ... may be used\nto endorse or promote products derived from this software without specific prior written permission": "BSD-3-Clause",
		"Mozilla Public License, version 2.0":                                          "MPL-2.0",
		"GNU General Public License\nVersion 3":                                        "GPL",
		"Do as you like, if you pay.":                                                  "",
		"Permission is hereby granted, free of charge, to any person obtaining a copy": "MIT",
	} {
		if got := licencesOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	finds(t, checkLicence(dependency{Path: "a"}, ""), "no licence")
	finds(t, checkLicence(dependency{Path: "a"}, "GPL MIT"), "GPL is not allowed")
	finds(t, checkLicence(dependency{Path: "a"}, "BSD-3-Clause"))
}

func TestNestedFinds(t *testing.T) {
	const page = "`a/b`"
	good := "module " + module + "/a/b\nrequire " + module + " v0.0.0\nreplace " + module + " => ../..\n"
	finds(t, checkNested("a/b", good, page))
	finds(t, checkNested("a/b", strings.Replace(good, "../..", "../", 1), page), "needs replace")
	finds(t, checkNested("a/b", strings.Replace(good, "a/b", "b", 1), page), "must be called")
	finds(t, checkNested("a/b", good, "a/b"), "not in docs/release.md")
	finds(t, checkNested("a/b", "module "+module+"/a/b\nrequire "+module+" v0.0.0\n", page), "needs replace")
	finds(t, checkNested("a/b", "module "+module+"/a/b\nrequire "+module+" v0.1.0\n", page))
}
