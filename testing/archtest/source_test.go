package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// file is one Go file of the tree.
type file struct {
	path  string // from the root of the tree, with slashes
	test  bool
	lines int
	fset  *token.FileSet
	ast   *ast.File
}

// notOurs are directories that hold no code of this module.
var notOurs = []string{"testdata", "node_modules", "dist", "vendor"}

// readTree parses all Go files of a tree.
func readTree(tree fs.FS) ([]file, error) {
	var files []file
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); slices.Contains(notOurs, base) || len(base) > 1 && (base[0] == '.' || base[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		f := file{path: name, test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(src, []byte("\n")), fset: token.NewFileSet()}
		f.ast, err = parser.ParseFile(f.fset, name, src, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

func (f file) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(n.Pos()).Line)
}

func (f file) imports() (list []string) {
	for _, s := range f.ast.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// localName is the name by which a file knows an imported package; "" where it does not
// import it.
func (f file) localName(importPath string) string {
	for _, s := range f.ast.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err != nil || p != importPath {
			continue
		}
		if s.Name != nil {
			return s.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// uses returns where a file names one of these functions of a package, called or passed
// on as a value.
func (f file) uses(importPath string, names []string) (list []string) {
	local := f.localName(importPath)
	switch local {
	case "", "_":
		return nil
	case ".":
		return []string{f.path + " imports " + importPath + " with a dot, which hides what it uses"}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, s.Sel.Name) {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local {
				list = append(list, fmt.Sprintf("%s: %s.%s", f.at(s), importPath, s.Sel.Name))
			}
		}
		return true
	})
	return list
}

func (f file) goroutines() (list []string) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			list = append(list, f.at(g))
		}
		return true
	})
	return list
}

// skips returns where a test skips itself: Skip, Skipf or SkipNow of a parameter that is
// a *testing.T, B or F, or a testing.TB.
func (f file) skips() (list []string) {
	local := f.localName("testing")
	if local == "" {
		return nil
	}
	params := map[string]bool{}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		field, ok := n.(*ast.Field)
		if !ok {
			return true
		}
		typ := field.Type
		if star, ok := typ.(*ast.StarExpr); ok {
			typ = star.X
		}
		if s, ok := typ.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local {
				for _, name := range field.Names {
					params[name.Name] = true
				}
			}
		}
		return true
	})
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
			if x, ok := s.X.(*ast.Ident); ok && params[x.Name] {
				list = append(list, f.at(s))
			}
		}
		return true
	})
	return list
}

// maxLines is the most that a file may have that is not a test: one file, one idea.
const maxLines = 400

// unfinished are the words by which something is left for later.
var unfinished = []string{"TODO", "FIXME", "XXX"}

// wrongFiles returns what breaks the rules that hold for every file.
func wrongFiles(files []file) (bad []string) {
	for _, f := range files {
		if path.Dir(f.path) == "testing" {
			bad = append(bad, f.path+": no Go file stands directly in testing/, it would be a package called like the standard library's")
		}
		if !f.test && f.lines > maxLines {
			bad = append(bad, fmt.Sprintf("%s has %d lines, allowed are %d", f.path, f.lines, maxLines))
		}
		if f.test {
			for _, use := range f.uses("time", []string{"Sleep"}) {
				bad = append(bad, use+": a test waits for what it needs, never for luck")
			}
		}
		for _, at := range f.skips() {
			bad = append(bad, at+": a test whose parts are missing fails and says what to do")
		}
		for _, group := range f.ast.Comments {
			for _, word := range unfinished {
				if strings.Contains(group.Text(), word) {
					bad = append(bad, fmt.Sprintf("%s: %s: finish it, or open an issue", f.at(group), word))
				}
			}
		}
	}
	return bad
}

// wrongDocs returns the packages that have no package comment in a doc.go.
func wrongDocs(files []file) (bad []string) {
	documented := map[string]bool{}
	for _, f := range files {
		dir := path.Dir(f.path)
		documented[dir] = documented[dir] || path.Base(f.path) == "doc.go" && f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != ""
	}
	for dir, ok := range documented {
		if !ok {
			bad = append(bad, dir+" has no doc.go with a package comment")
		}
	}
	slices.Sort(bad)
	return bad
}
