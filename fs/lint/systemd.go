package lint

import (
	"os"
	"path"
	"slices"
	"strings"
)

// unitDirs are where systemd looks for units, the first counts most
// (systemd.unit(5)).
func unitDirs() []string {
	return []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

// enabled returns what starts a unit: the link to it in a directory like
// multi-user.target.wants, or that to the System V script of its name. It
// returns "" for a unit that is masked, not there, or not enabled.
func (c *checker) enabled(unit string) (string, error) {
	if c.units == nil {
		if err := c.readUnits(); err != nil {
			return "", err
		}
	}
	return c.units[unit], nil
}

// firstEnabled returns the first of some units that is enabled, and by what.
func (c *checker) firstEnabled(units ...string) (unit, by string, err error) {
	for _, unit := range units {
		if by, err := c.enabled(unit); by != "" || err != nil {
			return unit, by, err
		}
	}
	return "", "", nil
}

func (c *checker) readUnits() error {
	c.units = map[string]string{}
	add := func(unit, link string) error {
		if c.units[unit] != "" {
			return nil
		}
		masked, err := c.masked(unit)
		if err == nil && !masked {
			c.units[unit] = link
		}
		return err
	}
	for _, dir := range unitDirs() {
		entries, err := c.list(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".wants") && !strings.HasSuffix(e.Name(), ".requires") {
				continue
			}
			if err := c.readWants(path.Join(dir, e.Name()), add); err != nil {
				return err
			}
		}
	}
	for _, level := range "2345S" {
		if err := c.readRunlevel("/etc/rc"+string(level)+".d", add); err != nil {
			return err
		}
	}
	return nil
}

// readWants adds the units that a directory of links names, if they are there.
func (c *checker) readWants(dir string, add func(unit, link string) error) error {
	links, err := c.list(dir)
	if err != nil {
		return err
	}
	for _, l := range links {
		link := path.Join(dir, l.Name())
		if there, err := c.unitFile(l.Name(), link); err != nil {
			return err
		} else if there {
			if err := add(l.Name(), link); err != nil {
				return err
			}
		}
	}
	return nil
}

// unitFile reports whether there is a unit of that name, in one of systemd's
// directories or by a link to it: what that leads to does not matter to systemd,
// which knows units by their names.
func (c *checker) unitFile(unit string, links ...string) (bool, error) {
	paths := links
	template := unit
	if name, rest, ok := strings.Cut(unit, "@"); ok {
		template = name + "@" + path.Ext(rest)
	}
	for _, dir := range unitDirs() {
		paths = append(paths, path.Join(dir, unit), path.Join(dir, template))
	}
	there, err := c.exists(paths...)
	return there != "", err
}

// readRunlevel adds what systemd-sysv-generator makes units of.
func (c *checker) readRunlevel(dir string, add func(unit, link string) error) error {
	links, err := c.list(dir)
	if err != nil {
		return err
	}
	for _, l := range links {
		name := l.Name()
		if len(name) < 4 || name[0] != 'S' {
			continue
		}
		script, err := c.exists(path.Join(dir, name))
		if err != nil {
			return err
		}
		if script == "" {
			continue
		}
		unit := name[3:] + ".service"
		if there, err := c.unitFile(unit); err != nil {
			return err
		} else if there { // which is enabled by itself, or not
			continue
		}
		if err := add(unit, path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// masked reports whether the first that is found of a unit is a link to
// /dev/null, or empty (systemd.unit(5)).
func (c *checker) masked(unit string) (bool, error) {
	for _, dir := range unitDirs() {
		p := path.Join(dir, unit)
		info, err := c.lstat(p)
		if err != nil {
			return false, err
		}
		if info == nil {
			continue
		}
		if info.Mode()&os.ModeSymlink == 0 {
			return info.Mode().IsRegular() && info.Size() == 0, nil
		}
		real, _, err := c.resolve(dir)
		if err != nil {
			return false, err
		}
		text, err := c.fs.Readlink(path.Join(real, unit))
		return text == "/dev/null", err
	}
	return false, nil
}

// section is a part of a file of settings as systemd and NetworkManager have
// them. Of a key that is there several times the last value counts.
type section struct {
	name   string
	values map[string]string
}

// parseSections reads lines of settings. A section that begins again goes on.
func parseSections(lines []string) []section {
	var all []section
	byName := map[string]map[string]string{}
	var values map[string]string
	for _, line := range lines {
		if name, ok := strings.CutPrefix(line, "["); ok {
			name = strings.TrimSuffix(name, "]")
			if values = byName[name]; values == nil {
				values = map[string]string{}
				byName[name] = values
				all = append(all, section{name, values})
			}
		} else if key, value, ok := strings.Cut(line, "="); ok && values != nil {
			values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return all
}

// settings reads a file of settings.
func (c *checker) settings(p string) ([]section, error) {
	lines, err := c.lines(p)
	return parseSections(lines), err
}

// dropIns returns the files with a suffix in some directories, in the order of
// their names; of two with the same name the one in the earlier directory counts.
// Nobody reads those whose names begin with a dot.
func (c *checker) dropIns(suffix string, dirs ...string) ([]string, error) {
	byName := map[string]string{}
	for _, dir := range dirs {
		entries, err := c.list(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, ".") && byName[name] == "" {
				byName[name] = path.Join(dir, name)
			}
		}
	}
	all := make([]string, 0, len(byName))
	for _, p := range byName {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(path.Base(a), path.Base(b)) })
	return all, nil
}
