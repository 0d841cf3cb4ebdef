package nodefiles_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/layer"
	"github.com/rootnfsd/rootnfsd/nodefiles"
)

func TestTemplates(t *testing.T) {
	m := newMaker(t, false)
	m.write("_all/etc/plain", "{{.Name}}")
	m.write("_all/empty.tmpl", "")
	unnamed := nodefiles.Node{Address: netip.MustParseAddr("192.0.2.40")}
	for text, want := range map[string]string{
		`{{.Name}} {{.Address}} {{.Hostname}} {{.MAC}} {{.Serial}} {{.Image}} {{.Version}}`:                                                   "pi-01 192.0.2.11 pi-01 dc:a6:32:01:36:c2 0660cd37 images v2",
		`{{range .Labels}} {{.}}{{end}}{{if .HasLabel "canary"}} sings{{end}}`:                                                                " canary rack1 sings",
		`{{with .Name}}{{range $i, $l := $.Labels}}{{if eq $i 1}}{{break}}{{end}}{{$l}}{{else}}none{{end}}{{end}}`:                            "canary",
		`{{$four := .Address.Is4 -}} {{if and $four (not (eq .Version "v1"))}}{{slice .Serial 4}} {{index .Labels 0}} {{len .Labels}}{{end}}`: "cd37 canary 2",
		`{{/* nothing */}}`: "",
	} {
		m.write("_all/etc/who.tmpl", text)
		files := m.files(pi01)
		if got := files["/etc/who"].Content; got != want {
			t.Errorf("%s is expanded to %q, want %q", text, got, want)
		}
		if got := files["/etc/plain"].Content; got != "{{.Name}}" {
			t.Errorf("what is no template was expanded to %q", got)
		}
	}
	m.write("_all/etc/who.tmpl", "{{.Hostname}}")
	if got := m.files(unnamed)["/etc/who"].Content; got != "192.0.2.40" {
		t.Errorf("a node without a name calls itself %q; want its address", got)
	}
}

// runaways are templates that would run without an end, or fill the memory, with what is said of them.
var runaways = map[string]string{
	"one\n{{range 1000000000000}}{{end}}":                                   "line 2:8: only .Labels can be ranged over, not 1000000000000",
	"{{range len .Name}}{{end}}":                                            "only .Labels can be ranged over, not len .Name",
	"{{$n := 1000000000000}}{{range $n}}{{end}}":                            "only .Labels",
	"{{with 1000000000000}}{{range .}}{{end}}{{end}}":                       "only .Labels",
	"{{if false}}{{else}}{{range $i := 1000000000000}}{{end}}{{end}}":       "only .Labels",
	"{{range .Labels}}{{else}}{{range 1000000000000}}{{end}}{{end}}":        "only .Labels",
	"{{range .Labels | len}}{{end}}":                                        "only .Labels",
	"{{range (slice .Labels 0)}}{{end}}":                                    "only .Labels",
	"{{range .Labels}}{{range $.Labels}}{{end}}{{end}}":                     "a range within a range",
	"{{range .Labels}}{{if true}}{{range $.Labels}}{{end}}{{end}}{{end}}":   "a range within a range",
	`{{define "x"}}{{template "x"}}{{template "x"}}{{end}}{{template "x"}}`: "templates cannot call templates",
	`{{block "x" .}}{{end}}`:                                                "templates cannot call templates",
	`{{$x := print .Name .Name}}{{$x = print $x $x}}`:                       "the function print cannot be used here",
	`{{if eq "x" (printf "%1000000s" "")}}{{end}}`:                          "the function printf cannot be used here",
	`{{.Name | html}}`:                "the function html cannot be used here",
	`{{(print .Name).Nothing}}`:       "the function print cannot be used here",
	strings.Repeat("x", 64<<10) + "y": "65536 bytes",
	"{{range .Labels}}" + strings.Repeat("{{$}}", 10_000) + "{{end}}":       "1048576 bytes",
	strings.Repeat("{{if 1}}", 8000) + strings.Repeat("(", 100) + "{{end}}": "line 1:",
	"{{" + strings.Repeat("(", 60_000):                                      "line 1:",
}

// TestTemplatesEnd: none can keep a node from booting. It is named, and the rest is there.
func TestTemplatesEnd(t *testing.T) {
	for text, want := range runaways {
		m := newMaker(t, false)
		m.write("_all/good.tmpl", "good")
		m.write("_all/bad.tmpl", text)
		if said := m.problem(pi01); !strings.Contains(said, "_all/bad.tmpl: ") || !strings.Contains(said, want) {
			t.Errorf("%.80s: %q does not say %q", text, said, want)
		}
		if files, _ := m.all(pi01); files["/good"].Content != "good" || files["/bad"].Path != "" {
			t.Errorf("%.80s: files: %s", text, paths(files))
		}
	}
}

// TestTemplateTime: when the time of a node's templates is over, the rest of them is left out, and it alone.
func TestTemplateTime(t *testing.T) {
	m := newMaker(t, true)
	m.write("_all/etc/motd", "for all")
	m.write("pi-01/etc/motd.tmpl", "{{.Name}}")
	m.SetTemplateTime(1) // which is over when the first of them writes
	if said := m.problem(pi01); !strings.Contains(said, "pi-01/etc/motd.tmpl: the templates of the node take more than") {
		t.Errorf("%q", said)
	}
	files, _ := m.all(pi01)
	if files["/etc/motd"].Content != "for all" || files["/etc/hostname"].Content != "pi-01\n" {
		t.Errorf("files: %s", paths(files))
	}
	m.SetTemplateTime(0)
	m.write("pi-01/etc/motd.tmpl", "{{if true}}{{end}}") // writes nothing
	if said := m.problem(pi01); !strings.Contains(said, "the templates of the node take more than") {
		t.Errorf("%q", said)
	}
}

// FuzzTemplates: whatever is in a template, there is a file within the bounds or a problem, soon.
func FuzzTemplates(f *testing.F) {
	for text := range runaways {
		if len(text) < 1000 { // of long ones there are few tries a second
			f.Add(text)
		}
	}
	f.Add(`{{.Hostname}} {{range $i, $l := .Labels}}{{$l}}{{continue}}{{else}}none{{end}}{{.Address.Next.Prefix 8}}`)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		made, err := nodefiles.New(nodefiles.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		m := &maker{made, t}
		m.write("_all/x.tmpl", text)
		files, problems := m.all(pi01)
		if len(files)+len(problems) != 1 || len(files["/x"].Content) > layer.MaxBytes {
			t.Errorf("%d files, %v", len(files), fmt.Sprint(problems))
		}
	})
}
