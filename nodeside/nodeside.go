package nodeside

import (
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs"
)

// placeholder is what the embedded files say for the home.
const placeholder = "server:/home"

// File is a file, symlink or directory as it is installed. It is root's.
type File struct {
	Path    string  // from the root of the tree, such as "/etc/systemd/journald.conf.d/90-rootnfsd.conf"
	Kind    fs.Kind // Regular, Symlink or Directory
	Mode    uint32  // within 07777
	Content string  // of a regular file, or the text of a symlink
}

// Target is a kind of system that files are for.
type Target struct {
	Name  string // what it is called on the command line
	About string // for which systems it is
	parts []part
}

// part is a file of a target, by what it is made of.
type part struct {
	path string
	kind fs.Kind
	mode uint32
	from string // the name in files, or the text of a symlink
	home bool   // only where there is a home
}

//go:embed files
var embedded embed.FS

// Targets returns all targets.
func Targets() []Target {
	return []Target{
		{"debian", "Debian and Ubuntu, with initramfs-tools", slices.Concat(hook(), systemd())},
		{"raspios", "Raspberry Pi OS from 12 (bookworm) on, with initramfs-tools", slices.Concat(hook(), systemd())},
		{"init-overlay", "a root without an initramfs that boots by init=/sbin/init-overlay", slices.Concat(
			[]part{{path: "/overlay", kind: fs.Directory, mode: 0o755}}, tool(), systemd())},
		{"alpine", "Alpine Linux, with OpenRC", alpine()},
	}
}

// TargetNames returns the names of all targets.
func TargetNames() []string {
	var names []string
	for _, t := range Targets() {
		names = append(names, t.Name)
	}
	return names
}

func file(path, from string) part { return part{path: path, kind: fs.Regular, mode: 0o644, from: from} }
func script(path, from string) part {
	return part{path: path, kind: fs.Regular, mode: 0o755, from: from}
}
func link(path, text string) part { return part{path: path, kind: fs.Symlink, mode: 0o777, from: text} }

// ofHome says that a part is for those who have a home.
func ofHome(p part) part {
	p.home = true
	return p
}

func tool() []part {
	return []part{script("/usr/local/sbin/rootnfsd-overlay", "rootnfsd-overlay.sh")}
}

func hook() []part {
	return append(tool(),
		script("/etc/initramfs-tools/hooks/rootnfsd-overlay", "hook.sh"),
		// Its name puts it behind overlayroot, which it undoes, and before udev, which takes /dev away.
		script("/etc/initramfs-tools/scripts/init-bottom/rootnfsd-overlay", "init-bottom.sh"),
		file("/etc/overlayroot.local.conf", "overlayroot.conf"),
	)
}

func systemd() []part {
	const units = "/etc/systemd/system/"
	return []part{
		file("/etc/systemd/journald.conf.d/90-rootnfsd.conf", "journald.conf"),
		ofHome(file(units+"home.mount", "home.mount")),
		ofHome(file(units+"home.automount", "home.automount")),
		ofHome(file(units+"home-activate.service", "home-activate.service")),
		ofHome(link(units+"multi-user.target.wants/home-activate.service", "../home-activate.service")),
		script("/usr/local/sbin/rootnfsd-good", "rootnfsd-good.sh"),
		file(units+"rootnfsd-good.service", "rootnfsd-good.service"),
		link(units+"multi-user.target.wants/rootnfsd-good.service", "../rootnfsd-good.service"),
	}
}

func alpine() []part {
	return []part{
		file("/etc/conf.d/syslog", "alpine-syslog.conf"),
		ofHome(script("/etc/local.d/rootnfsd-0-home.start", "alpine-home.sh")),
		script("/usr/local/sbin/rootnfsd-good", "rootnfsd-good.sh"),
		script("/etc/local.d/rootnfsd-9-good.start", "alpine-good.sh"),
		link("/etc/runlevels/default/local", "/etc/init.d/local"),
	}
}

// Files returns the files of a target in the order of their installation. The home is SERVER:/PATH; without one
// the files that mount it are left out. The error for a target that there is not is ErrTarget.
func Files(target, home string) ([]File, error) {
	all := Targets()
	at := slices.IndexFunc(all, func(t Target) bool { return t.Name == target })
	if at < 0 {
		return nil, fmt.Errorf("%w: %s", ErrTarget, target)
	}
	if home != "" {
		if err := checkHome(home); err != nil {
			return nil, err
		}
	}
	var files []File
	for _, p := range all[at].parts {
		if p.home && home == "" {
			continue
		}
		f := File{Path: p.path, Kind: p.kind, Mode: p.mode, Content: p.from}
		if p.kind == fs.Regular {
			b, err := embedded.ReadFile("files/" + p.from)
			if err != nil {
				return nil, err
			}
			f.Content = string(b)
		}
		if p.home {
			f.Content = strings.ReplaceAll(f.Content, placeholder, home)
		}
		files = append(files, f)
	}
	return files, nil
}

// ErrTarget says that there is no target of a name.
var ErrTarget = errors.New("there is no such target")

// checkHome refuses what would not be one word in a unit and in a script.
func checkHome(home string) error {
	server, path, ok := strings.Cut(home, ":/")
	if strings.HasPrefix(home, "[") { // an IPv6 address
		server, path, ok = strings.Cut(strings.TrimPrefix(home, "["), "]:/")
	}
	if !ok || server == "" {
		return fmt.Errorf("%q is no home: want SERVER:/PATH, such as 192.168.1.66:/home", home)
	}
	if len(home) > 1024 || strings.ContainsFunc(server+path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:/@+", r))
	}) {
		return fmt.Errorf("%q is no home that can be written into a unit: want letters, digits and - _ . : / @ + in SERVER:/PATH", home)
	}
	return nil
}
