// SPDX-License-Identifier: Apache-2.0

// Package godocs is the demo's data set: the doc comments of the Go standard
// library, and an embedder small enough to be read. It is good enough for a
// person to judge the results of a search, and no more.
package godocs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Doc is the comment of one package, function, type, method, or group of
// constants or variables.
type Doc struct {
	ID      string // "compress/gzip.NewReader"
	Package string
	Name    string // "NewReader"; empty for the package itself
	Kind    string // package, func, type, method, value
	Text    string
}

// Payload is the doc's payload in the database.
func (d Doc) Payload() ([]byte, error) {
	return json.Marshal(map[string]any{"package": d.Package, "name": d.Name, "kind": d.Kind, "doc": Summary(d.Text), "chars": len(d.Text)})
}

// Summary is the first sentence.
func Summary(text string) string {
	return strings.Join(strings.Fields(new(doc.Package).Synopsis(text)), " ")
}

// minChars: shorter comments say nothing that could be searched for.
const minChars = 24

// Load reads the comments of all packages that a program can import, from the
// source of the Go installation that `go env GOROOT` names.
func Load(ctx context.Context) ([]Doc, error) {
	root, err := goroot(ctx)
	if err != nil {
		return nil, err
	}
	src := filepath.Join(root, "src")
	var docs []Doc
	err = filepath.WalkDir(src, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(strings.TrimPrefix(path, src), string(filepath.Separator)))
		switch name := e.Name(); {
		case rel == "":
			return nil
		case name == "internal", name == "vendor", name == "testdata", rel == "cmd", rel == "simd", strings.HasPrefix(name, "_"), strings.HasPrefix(name, "."):
			return fs.SkipDir
		}
		found, err := readPackage(path, rel)
		docs = append(docs, found...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("godocs: %w", err)
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("godocs: no Go source under %s", src)
	}
	return docs, nil
}

func goroot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err == nil && len(strings.TrimSpace(string(out))) > 0 {
		return strings.TrimSpace(string(out)), nil
	}
	if dir := os.Getenv("GOROOT"); dir != "" {
		return dir, nil
	}
	for _, dir := range []string{"/usr/local/go", "/usr/lib/go"} {
		if _, err := os.Stat(filepath.Join(dir, "src", "fmt")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("godocs: the Go installation is not found (go env GOROOT: %w); akidb demo --data DIR takes another data set", err)
}

// readPackage reads the comments of one directory, in an order that depends on
// the source only.
func readPackage(dir, importPath string) ([]Doc, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || !forThisSystem(name) {
			continue
		}
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.ParseComments)
		if err != nil || f.Name.Name == "main" || ignored(f) {
			continue // a file that does not parse has no comments to show
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, nil
	}
	pkg, err := doc.NewFromFiles(fset, files, importPath)
	if err != nil {
		return nil, nil //nolint:nilerr // files of several packages: not one to import
	}
	return collect(pkg, importPath), nil
}

// forThisSystem drops the files of other systems, which repeat the same names.
func forThisSystem(name string) bool {
	base := strings.TrimSuffix(name, ".go")
	parts := strings.Split(base, "_")
	for _, p := range parts[1:] {
		if slices.Contains([]string{"windows", "plan9", "darwin", "freebsd", "netbsd", "openbsd", "dragonfly", "solaris", "illumos", "aix", "js", "wasip1", "ios", "android"}, p) && p != runtime.GOOS {
			return false
		}
	}
	return true
}

// ignored is true for files that no build includes.
func ignored(f *ast.File) bool {
	for _, g := range f.Comments {
		if g.Pos() > f.Package {
			break
		}
		for _, c := range g.List {
			if c.Text == "//go:build ignore" {
				return true
			}
		}
	}
	return false
}

func collect(pkg *doc.Package, path string) []Doc {
	var out []Doc
	seen := map[string]bool{}
	add := func(name, kind, text string) {
		text = strings.TrimSpace(text)
		id := path
		if name != "" {
			id += "." + name
		}
		if len(text) < minChars || seen[id] {
			return
		}
		seen[id] = true
		out = append(out, Doc{ID: id, Package: path, Name: name, Kind: kind, Text: text})
	}
	add("", "package", pkg.Doc)
	values := func(vs []*doc.Value) {
		for _, v := range vs {
			add(v.Names[0], "value", v.Doc)
		}
	}
	funcs := func(owner, kind string, fs []*doc.Func) {
		for _, f := range fs {
			add(owner+f.Name, kind, f.Doc)
		}
	}
	values(pkg.Consts)
	values(pkg.Vars)
	funcs("", "func", pkg.Funcs)
	for _, t := range pkg.Types {
		add(t.Name, "type", t.Doc)
		values(t.Consts)
		values(t.Vars)
		funcs("", "func", t.Funcs)
		funcs(t.Name+".", "method", t.Methods)
	}
	return out
}

// ErrEmpty is returned for a text without a word.
var ErrEmpty = errors.New("godocs: no word to embed")
