package lint

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs/fstab"
	"github.com/rootnfsd/rootnfsd/fs/source/overlay"
)

// FixesPath is the file of a fixed tree that tells what was changed in it, as
// JSON: a list of changes.
const FixesPath = "/etc/rootnfsd/fixes.json"

// Change is something that Fix changed.
type Change struct {
	Rule string `json:"rule"`
	File string `json:"file"`
	What string `json:"change"`
	// Before and After are the content, a symlink's being "-> " and its text, or
	// nothing where there was or is nothing, or where only the mode changed.
	Before string `json:"-"`
	After  string `json:"-"`
}

// Caps says what is done about file capabilities.
type Caps string

// What can be done about file capabilities.
const (
	CapsWarn    Caps = "warn"    // nothing
	CapsSetuid  Caps = "setuid"  // the programs that are known to be meant for it become setuid
	CapsRestore Caps = "restore" // a service sets them when a node boots
)

// ParseCaps returns what a word stands for.
func ParseCaps(word string) (Caps, error) {
	if c := Caps(word); c == CapsWarn || c == CapsSetuid || c == CapsRestore {
		return c, nil
	}
	return "", fmt.Errorf("%q is nothing that can be done about file capabilities: want warn, setuid or restore", word)
}

// Fix returns a tree in which what can be put right without knowing more is put
// right, and what was changed for that. The tree that it is given stays as it is.
// If there was nothing to do the two are the same.
func Fix(ctx context.Context, root billy.Filesystem, caps Caps) (*overlay.Overlay, []Change, error) {
	out := overlay.New(root)
	f := &fixer{checker: newChecker(ctx, out), out: out, caps: caps}
	for _, step := range []struct {
		rule string
		fix  func() error
	}{
		{"file-capabilities", f.fixCapabilities},
		{"fstab-disk", f.fixFstab},
		{"swap", func() error { return f.maskAll(swapUnits()) }},
		{"machine-id", f.fixMachineID},
		{"journal-persistent", f.fixJournal},
		{"first-boot", func() error { return f.maskAll(firstBootUnits()) }},
		{"background-updates", f.fixUpdates},
		{"overlayroot-conf", f.fixOverlayroot},
	} {
		f.rule = &Rule{ID: step.rule}
		if err := step.fix(); err != nil {
			return nil, nil, fmt.Errorf("fix %s: %w", step.rule, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
	}
	if len(f.changes) == 0 {
		return out, nil, nil
	}
	return out, f.changes, f.record()
}

// fixer changes a tree that it sees as it has been changed so far.
type fixer struct {
	*checker
	out     *overlay.Overlay
	caps    Caps
	changes []Change
}

func (f *fixer) changed(file, what, before, after string) {
	f.changes = append(f.changes, Change{f.rule.ID, file, what, before, after})
}

// write replaces what is in a file, or makes it.
func (f *fixer) write(p, content, what string) error {
	before, err := f.read(p)
	if err != nil {
		return err
	}
	real, err := f.place(p)
	if err != nil {
		return err
	}
	if err := f.out.WriteFile(real, []byte(content), 0o644); err != nil {
		return err
	}
	f.changed(real, what, before, content)
	return nil
}

// readWhole returns what is in a file that is to be written again, and an error
// if that is more than is read of one.
func (f *fixer) readWhole(p string) (string, error) {
	text, err := f.read(p)
	if err == nil && len(text) == maxConfig {
		err = fmt.Errorf("%s is larger than %d KiB, which no file of settings is: put it right yourself", p, maxConfig>>10)
	}
	return text, err
}

// link puts a symlink at p, whatever is there.
func (f *fixer) link(p, target, what string) error {
	dir, err := f.directory(path.Dir(p))
	if err != nil {
		return err
	}
	real := path.Join(dir, path.Base(p))
	before := ""
	if text, err := f.fs.Readlink(real); err == nil {
		before = "-> " + text + "\n"
	} else if before, err = f.read(real); err != nil {
		return err
	}
	if err := f.out.Link(real, target); err != nil {
		return err
	}
	f.changed(real, what, before, "-> "+target+"\n")
	return nil
}

// place returns where a file is to be written that is called p. A link to what is
// no file, as one to /dev/null is, is replaced itself.
func (f *fixer) place(p string) (string, error) {
	real, info, err := f.resolve(p)
	if !missing(err) && (err != nil || info.Mode().IsRegular()) {
		return real, err
	}
	dir, err := f.directory(path.Dir(p))
	return path.Join(dir, path.Base(p)), err
}

// directory returns the real path of a directory, which is made if need be.
func (f *fixer) directory(p string) (string, error) {
	real, _, err := f.makeDirectory(p)
	return real, err
}

// makeDirectory returns the real path of a directory, and those of the directories that had to be made for it.
func (f *fixer) makeDirectory(p string) (real string, made []string, err error) {
	real, info, err := f.resolve(p)
	switch {
	case err == nil && !info.IsDir():
		return "", nil, fmt.Errorf("%s is no directory", p)
	case !missing(err) || p == "/":
		return real, nil, err
	}
	above, made, err := f.makeDirectory(path.Dir(p))
	if err != nil {
		return "", made, err
	}
	real = path.Join(above, path.Base(p))
	if err := f.out.Mkdir(real); err != nil {
		return "", made, err
	}
	return real, append(made, real), nil
}

func (f *fixer) fixFstab() error {
	text, err := f.readWhole(fstabPath)
	if err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(text))
	var done []string
	for _, m := range fstab.Parse(text) {
		if waitsForDisk(&m) || swapsToFile(&m) {
			lines[m.Line] = "#" + lines[m.Line]
			done = append(done, fmt.Sprint(m.Line+1))
		}
	}
	if len(done) == 0 {
		return nil
	}
	return f.write(fstabPath, strings.Join(lines, ""), "commented out line "+strings.Join(done, ", "))
}

func (f *fixer) fixMachineID() error {
	filled, err := f.isFilled(machineIDPath)
	if err != nil {
		return err
	}
	first, err := f.isFirstBoot()
	if err != nil {
		return err
	}
	if filled || first {
		if err := f.write(machineIDPath, "", "emptied"); err != nil {
			return err
		}
	}
	filled, err = f.isFilled(dbusIDPath)
	if !filled || err != nil {
		return err
	}
	return f.link(dbusIDPath, machineIDPath, "made a link to "+machineIDPath)
}

func (f *fixer) fixJournal() error {
	f.findings = nil
	if err := checkJournal(f.checker); err != nil || len(f.findings) == 0 {
		return err
	}
	others, err := f.journalDropIns()
	if err != nil {
		return err
	}
	// The last one counts, and "~" comes behind the dot.
	name := "99-diskless.conf"
	if n := len(others); n > 0 && path.Base(others[n-1]) > name {
		name = strings.TrimSuffix(path.Base(others[n-1]), ".conf") + "~diskless.conf"
	}
	return f.write("/etc/systemd/journald.conf.d/"+name, "[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\n", "made")
}

// maskAll masks those of some units that are enabled.
func (f *fixer) maskAll(units []string) error {
	return each(units, func(unit string) error {
		by, err := f.enabled(unit)
		if by == "" || err != nil {
			return err
		}
		return f.link("/etc/systemd/system/"+unit, "/dev/null", "masked")
	})
}

func (f *fixer) fixUpdates() error {
	f.findings = nil
	if err := checkUpdates(f.checker); err != nil || len(f.findings) == 0 {
		return err
	}
	return f.maskAll(updateUnits())
}

func (f *fixer) fixOverlayroot() error {
	for _, p := range []string{overlayrootConf, "/etc/overlayroot.local.conf"} {
		text, err := f.readWhole(p)
		if err != nil {
			return err
		}
		var fixed strings.Builder
		for line := range strings.Lines(text) {
			fixed.WriteString(fixOverlayrootLine(line))
		}
		if fixed.String() == text {
			continue
		}
		if err := f.write(p, fixed.String(), "left what overlayroot knows, with recurse=0"); err != nil {
			return err
		}
	}
	return nil
}

// fixOverlayrootLine returns a line of overlayroot's settings without what it
// does not know, and with recurse=0.
func fixOverlayrootLine(line string) string {
	key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
	if !ok || !strings.HasPrefix(key, "overlayroot") || key == "overlayroot_cfgdisk" {
		return line
	}
	if key != "overlayroot" {
		return "#" + line
	}
	value, remark := shellValue(value)
	mode, options, _ := strings.Cut(value, ":")
	if !isOverlayMode(mode) || strings.ContainsAny(value, "\"'`$\\ \t;") { // what would need other quotes
		return line
	}
	var kept []string
	wrong, keeps := false, false
	for option := range strings.SplitSeq(options, ",") {
		name, v, _ := strings.Cut(option, "=")
		switch {
		case name == "recurse":
			keeps = v == "0"
		case slices.Contains(overlayrootKeys(mode), name):
			kept = append(kept, option)
		case name != "":
			wrong = true
		}
	}
	if keeps && !wrong {
		return line
	}
	return `overlayroot="` + mode + ":" + strings.Join(append(kept, "recurse=0"), ",") + `"` + remark + "\n"
}

// record writes down what was changed, behind what was changed in this tree
// before.
func (f *fixer) record() error {
	text, err := f.readWhole(FixesPath)
	if err != nil {
		return err
	}
	var all []Change
	if json.Unmarshal([]byte(text), &all) != nil {
		all = nil
	}
	b, err := json.MarshalIndent(append(all, f.changes...), "", "  ")
	if err != nil {
		return err
	}
	real, err := f.place(FixesPath)
	if err != nil {
		return err
	}
	return f.out.WriteFile(real, append(b, '\n'), 0o644)
}
