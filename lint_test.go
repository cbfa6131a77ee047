// SPDX-License-Identifier: Apache-2.0

package akidb_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// source is one Go file of ours.
type source struct {
	path string // slash-separated, from the root of the module
	test bool
	file *ast.File
	set  *token.FileSet
}

func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.set.Position(n.Pos()).Line)
}

// sources parses every Go file of the module but the generated ones.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if name == "testdata" || name == "_asm" || strings.HasPrefix(name, ".") && name != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(file) && !deliberateFaults(file) {
			out = append(out, source{filepath.ToSlash(path), strings.HasSuffix(name, "_test.go"), file, set})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// deliberateFaults: code that only builds with the tag akidb_mutants, which shows
// that the fault-injection harness finds faults, is in no binary for use.
func deliberateFaults(f *ast.File) bool {
	for _, g := range f.Comments {
		for _, c := range g.List {
			if c.Text == "//go:build akidb_mutants" {
				return true
			}
		}
	}
	return false
}

// constantVars are package-level variables that are never written after they are
// initialised, and why they cannot be constants. Errors, interface assertions,
// embedded files, arrays and CPU flags need no entry.
var constantVars = map[string]string{
	"node/rpc_errors.go:errInvalid":   "node.ErrInvalid by the name that the package has for it",
	"rpc/errors.go:errorRules":        "a table",
	"index/arena.go:physicalMemory":   "a fact of the machine, asked for once",
	"jepsen/check/cycle.go:edgeNames": "a table",
}

func TestNoPackageLevelState(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, decl := range s.file.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					if !harmlessVar(s, g, v, i) && constantVars[s.path+":"+name.Name] == "" {
						t.Errorf("%s: package-level variable %s <- put it into a struct that somebody owns; if it is a constant that Go cannot express, give the reason in constantVars",
							s.at(name), name.Name)
					}
				}
			}
		}
	}
}

// harmlessVar recognises what is a constant in all but name.
func harmlessVar(s source, g *ast.GenDecl, v *ast.ValueSpec, i int) bool {
	name := v.Names[i].Name
	switch {
	case name == "_":
		return true
	case g.Doc != nil && strings.Contains(g.Doc.List[len(g.Doc.List)-1].Text, "//go:embed"):
		return true
	case strings.HasPrefix(name, "Err") || strings.HasPrefix(name, "err"):
		return i < len(v.Values) && isCall(v.Values[i], "errors", "New")
	}
	if i >= len(v.Values) {
		// Bools set once from the CPU's features.
		id, ok := v.Type.(*ast.Ident)
		return ok && id.Name == "bool" && strings.HasPrefix(s.path, "index/distance/")
	}
	if lit, ok := v.Values[i].(*ast.CompositeLit); ok {
		array, ok := lit.Type.(*ast.ArrayType)
		return ok && array.Len != nil || isSelector(lit.Type, "color") // tables as arrays, colours
	}
	if strings.HasPrefix(s.path, "index/distance/") {
		_, several := v.Values[i].(*ast.BinaryExpr)
		return several || isSelector(v.Values[i], "cpu") || isSelector(v.Values[i], "true")
	}
	return false
}

func isSelector(e ast.Expr, root string) bool {
	for {
		sel, ok := e.(*ast.SelectorExpr)
		if !ok {
			break
		}
		e = sel.X
	}
	id, ok := e.(*ast.Ident)
	return ok && id.Name == root
}

func isCall(e ast.Expr, pkg, fn string) bool {
	c, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := c.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == fn && isSelector(sel.X, pkg)
}

// importName is the name by which a file calls an imported package; "" if it
// does not import it.
func importName(f *ast.File, path string) string {
	for _, imp := range f.Imports {
		if p, err := strconv.Unquote(imp.Path.Value); err == nil && p == path {
			if imp.Name != nil {
				return imp.Name.Name
			}
			return path[strings.LastIndexByte(path, '/')+1:]
		}
	}
	return ""
}

// uses calls fn for each use of a name of the package at path.
func uses(s source, path string, fn func(n ast.Node, name string)) {
	pkg := importName(s.file, path)
	if pkg == "" {
		return
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == pkg {
				fn(sel, sel.Sel.Name)
			}
		}
		return true
	})
}

// timed are the names of package time that look at a clock.
var timed = map[string]bool{"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"NewTimer": true, "NewTicker": true, "Tick": true}

// goroutinesAllowed are files under raftfsm whose goroutines do not decide state.
var goroutinesAllowed = map[string]string{}

func TestStateMachineIsDeterministic(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.path, "raftfsm/") {
			continue
		}
		for _, banned := range []string{"math/rand", "math/rand/v2", "crypto/rand", "github.com/google/uuid", "os/user"} {
			if importName(s.file, banned) != "" {
				t.Errorf("%s imports %s <- chance comes with the command, from the proposer", s.path, banned)
			}
		}
		uses(s, "time", func(n ast.Node, name string) {
			if timed[name] {
				t.Errorf("%s: time.%s <- time comes with the command, from the proposer", s.at(n), name)
			}
		})
		uses(s, "os", func(n ast.Node, name string) {
			switch name {
			case "Getenv", "LookupEnv", "Environ", "Hostname", "Getpid", "ExpandEnv":
				t.Errorf("%s: os.%s <- the state must not depend on where it is computed", s.at(n), name)
			}
		})
		ast.Inspect(s.file, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok && goroutinesAllowed[s.path] == "" {
				t.Errorf("%s: go statement <- Apply is one goroutine; if this one cannot touch the state, say why in goroutinesAllowed", s.at(g))
			}
			return true
		})
	}
}

func TestTestsDoNotSleep(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		uses(s, "time", func(n ast.Node, name string) {
			if name == "Sleep" && !inBubble(s) {
				t.Errorf("%s: time.Sleep <- wait for a condition, or use testing/synctest", s.at(n))
			}
		})
	}
}

// inBubble: a file that says that it runs under synctest sleeps on a fake clock.
func inBubble(s source) bool {
	if importName(s.file, "testing/synctest") != "" {
		return true
	}
	for _, c := range s.file.Comments {
		if strings.Contains(c.Text(), "synctest") {
			return true
		}
	}
	return false
}

// mayReadEnv are the trees that look at the environment.
var mayReadEnv = []string{"cmd/", "jepsen/", "index/annbench/"}

func TestOnlyCommandsReadTheEnvironment(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || hasPrefix(s.path, mayReadEnv) {
			continue
		}
		uses(s, "os", func(n ast.Node, name string) {
			switch name {
			case "Getenv", "LookupEnv", "Environ", "Exit", "Args":
				t.Errorf("%s: os.%s <- only commands read flags and environment or end the process", s.at(n), name)
			}
		})
		uses(s, "log/slog", func(n ast.Node, name string) {
			switch name {
			case "Default", "SetDefault", "Info", "Warn", "Error", "Debug":
				t.Errorf("%s: slog.%s <- use the logger you were given", s.at(n), name)
			}
		})
		uses(s, "github.com/prometheus/client_golang/prometheus", func(n ast.Node, name string) {
			switch name {
			case "DefaultRegisterer", "DefaultGatherer", "MustRegister", "Register":
				t.Errorf("%s: prometheus.%s <- use the registerer you were given", s.at(n), name)
			}
		})
	}
}

func hasPrefix(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// initAllowed: CPU detection only.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.path, "index/distance/") {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init <- construct what is needed where it is owned", s.at(f))
			}
		}
	}
}

func TestEveryFileHasALicenceAndABearableLength(t *testing.T) {
	for _, s := range sources(t) {
		if len(s.file.Comments) == 0 || !strings.HasPrefix(s.file.Comments[0].List[0].Text, "// SPDX-License-Identifier: Apache-2.0") {
			t.Errorf("%s: no SPDX line at the top", s.path)
		}
		if lines := s.set.Position(s.file.End()).Line; lines > 800 {
			t.Errorf("%s: %d lines, more than 800 <- split it by activity", s.path, lines)
		}
	}
}
