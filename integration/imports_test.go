package integration

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rootnfsd/rootnfsd/"

// importRule says which packages of the module those below a directory may
// import, besides each other. The first rule that fits a package counts.
type importRule struct {
	dir string
	may string // packages, or "..." for all
	why string
}

var importRules = []importRule{
	{"cmd", "...", "cmd wires all"},
	{"nfs", "exports fs capability", "the wire does not know where bytes live"},
	{"netboot/dhcp", "", "what a DHCP server is told does not depend on where nodes come from"},
	{"netboot/tftp", "fs", "how files are sent is no matter of what they are"},
	{"netboot", "exports fs", "boot files come from exports, not from the store"},
	{"admin", "exports nfs fs", "the operator's door does not look past exports"},
	{"nodefiles", "fs fs/durable fs/layer", "what is a node's own does not know how it gets there"},
	{"nodeside", "fs", "files of the node's side know no versions"},
	{"exports", "fs fs/durable fs/layer hostlist", "what is served to whom is no matter of protocols or of bytes on a disk"},
	{"fs/image", "fs fs/durable fs/pagecache fs/source cache", "the store knows neither clients nor the wire"},
	{"fs/hostdir", "fs fs/pagecache cache capability", "a host directory does not know what it is served as"},
	{"fs/source", "fs fs/fstab", "a reader of trees knows neither packs nor exports"},
	{"fs/dpkg", "", "what is installed in a tree is read from any billy.Filesystem"},
	{"fs/fstab", "", "a table is read from text"},
	{"fs/lint", "fs fs/fstab fs/source fs/source/compressed fs/source/overlay", "what is wrong with a tree is read from any billy.Filesystem"},
	{"fs/fstest", "fs", "the suite that every tree must pass knows none of them"},
	{"fs/layer", "fs", "what is laid over a tree does not know whose it is"},
	{"fs/durable", "", "replacing a file durably is below everything"},
	{"fs/pagecache", "", "reading what is in memory is below everything"},
	{"fs", "", "the vocabulary is below everything, so that no cycle can pass through it"},
	{"capability", "", "what a thread may is below everything"},
	{"hostlist", "", "a list of names knows no nodes"},
	{"cache", "", "a cache does not know what it holds"},
	{"integration", "bench bench/fio bench/guest bench/peer bench/rpc bench/storm", "rootnfsd is a black box, known by its command line and what it is measured in"},
	{"bench", "nfs/wire", "rootnfsd is a black box, known by its command line and the protocol"},
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
}

// TestImports holds the packages to the directions in which they may know each other.
func TestImports(t *testing.T) {
	out := finish(t, exec.Command("go", "list", "-json=ImportPath,Imports", module+"..."))
	if out.status != 0 {
		t.Fatal(out.stderr)
	}
	packages := 0
	for d := json.NewDecoder(bytes.NewReader([]byte(out.stdout))); ; packages++ {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, complaint := range p.breaches() {
			t.Error(complaint)
		}
	}
	if packages < 5 {
		t.Errorf("go list knows %d packages; the test does not see the module", packages)
	}
}

// TestImportRules breaks the rules to see that it is noticed.
func TestImportRules(t *testing.T) {
	for _, c := range []struct {
		importer, imported string
		allowed            bool
	}{
		{"cmd/rootnfsd", "fs/image", true},
		{"nfs", "exports", true},
		{"nfs", "nfs/wire", true},
		{"nfs", "fs/image", false},
		{"nfs", "netboot", false},
		{"netboot", "netboot/tftp", true},
		{"netboot", "nodefiles", false},
		{"netboot/dhcp", "exports", false},
		{"netboot/tftp", "fs", true},
		{"netboot/tftp", "exports", false},
		{"exports", "fs/durable", true},
		{"exports", "fs/image", false},
		{"exports", "fs/layer", true},
		{"exports", "nodefiles", false},
		{"nodefiles", "exports", false},
		{"exports", "fs/fstest", false},
		{"exports", "nfs", false},
		{"fs/image", "cache", true},
		{"fs/image", "fs/source", true},
		{"fs/image", "exports", false},
		{"fs/lint", "fs/source", true},
		{"fs/lint", "fs/image", false},
		{"fs", "cache", false},
		{"fs", "fs/durable", false},
		{"cache", "fs", false},
		{"fs/fstest", "cache", false},
		{"integration", "integration/lab", true},
		{"integration/lab", "fs", false},
		{"integration/bootbench", "bench/storm", true},
		{"bench", "nfs", false},
		{"bench/load", "nfs/wire", true},
		{"surprise", "fs", false},
	} {
		p := pkg{module + c.importer, []string{"fmt", module + c.imported}}
		if got := len(p.breaches()) == 0; got != c.allowed {
			t.Errorf("%s imports %s: allowed is %v; want %v", c.importer, c.imported, got, c.allowed)
		}
	}
	for path, allowed := range map[string]bool{"fs": false, "fs/image": true} {
		p := pkg{module + path, []string{"golang.org/x/sys/unix"}}
		if got := len(p.breaches()) == 0; got != allowed {
			t.Errorf("%s imports a package of others: allowed is %v; want %v", path, got, allowed)
		}
	}
}

// breaches says which imports break the rules, and why that is one.
func (p pkg) breaches() []string {
	dir := strings.TrimPrefix(p.ImportPath, module)
	at := slices.IndexFunc(importRules, func(r importRule) bool { return below(dir, r.dir) })
	if at < 0 {
		return []string{dir + " is in no rule: say in importRules what it may import"}
	}
	var complaints []string
	for _, imported := range p.Imports {
		own, isOwn := strings.CutPrefix(imported, module)
		if isOwn && !importRules[at].allows(own) {
			complaints = append(complaints, dir+" imports "+own+": "+importRules[at].why)
		}
		if dir == "fs" && !isOwn && strings.Contains(imported, ".") {
			complaints = append(complaints, "fs imports "+imported+": the vocabulary needs the standard library alone")
		}
	}
	return complaints
}

func (r importRule) allows(imported string) bool {
	if r.may == "..." || slices.Contains(strings.Fields(r.may), imported) {
		return true
	}
	// What is below a directory shares its rule, but for fs, which is itself alone.
	return r.dir != "fs" && below(imported, r.dir)
}

// below reports whether a package's directory is parent or lies below it.
func below(dir, parent string) bool { return dir == parent || strings.HasPrefix(dir, parent+"/") }
