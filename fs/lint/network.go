package lint

import (
	"path"
	"slices"
	"strings"
)

// networkRules are about who else thinks that the network is his.
func networkRules() []Rule {
	return []Rule{{
		ID: "root-interface", Severity: Warning,
		Looks: "NetworkManager, systemd-networkd (also by netplan), dhcpcd and ifupdown, enabled and in charge of a wired interface. " +
			"Harmless are: NetworkManager with `unmanaged-devices` for it or for all; networkd without a `.network` file that matches it, with `KeepConfiguration=yes` or `dhcp`, or `Unmanaged=yes`; " +
			"netplan with `critical: true`; dhcpcd with `nolink`, or with `denyinterfaces` for it; ifupdown with `inet manual`, or without a stanza for it",
		Reason: "The initramfs has brought up the interface that the root comes over. Whoever configures it again, or takes it down at a restart, an upgrade or when the node stops, takes the root away: everything hangs.",
		Fix:    "Leave the interface alone, as the finding says for the program that it names; the address is there already.",
		check: func(c *checker) error {
			for _, check := range []func(*checker) error{checkNetworkManager, checkNetworkd, checkNetplan, checkDhcpcd, checkIfupdown} {
				if err := check(c); err != nil {
					return err
				}
			}
			return nil
		},
	}}
}

// wired are names that the interface of the root may have.
func wired() []string {
	return []string{"eth0", "end0", "enp1s0", "ens3", "eno1", "enxb827eb000000", "enabcm6e4ei0"}
}

// matchesWired reports whether one of some patterns, of which the first with a
// "!" turns all round, is for a wired interface.
func matchesWired(patterns []string) bool {
	if len(patterns) == 0 {
		return false
	}
	first, inverted := strings.CutPrefix(patterns[0], "!")
	patterns = append([]string{first}, patterns[1:]...)
	matches := func(name string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			ok, err := path.Match(pattern, name)
			return ok && err == nil
		})
	}
	return slices.ContainsFunc(wired(), func(name string) bool { return matches(name) != inverted })
}

func checkNetworkManager(c *checker) error {
	by, err := c.enabled("NetworkManager.service")
	if by == "" || err != nil {
		return err
	}
	files, err := c.dropIns(".conf", "/etc/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d", "/lib/NetworkManager/conf.d")
	if err != nil {
		return err
	}
	// What the distribution has is read first, then the main file, then what is added to it.
	added := func(p string) bool { return strings.HasPrefix(p, "/etc/") }
	order := append(slices.DeleteFunc(slices.Clone(files), added), "/etc/NetworkManager/NetworkManager.conf")
	order = append(order, slices.DeleteFunc(files, func(p string) bool { return !added(p) })...)
	unmanaged, managed := "", true
	err = each(order, func(p string) error {
		sections, err := c.settings(p)
		for _, s := range sections {
			if v, ok := s.values["unmanaged-devices"]; ok && s.name == "keyfile" {
				unmanaged = v
			}
			device := s.values["match-device"]
			if v := s.values["managed"]; strings.HasPrefix(s.name, "device") && (v == "0" || v == "false") && (device == "" || unmanagesWired(device)) {
				managed = false
			}
		}
		return err
	})
	if err == nil && managed && !unmanagesWired(unmanaged) {
		c.found(Warning, by, "NetworkManager is in charge of the interface that the root comes over",
			`printf '[keyfile]\nunmanaged-devices=type:ethernet\n' > etc/NetworkManager/conf.d/root.conf`)
	}
	return err
}

// unmanagesWired reports whether a list of NetworkManager's device specs has the
// wired interfaces in it (NetworkManager.conf(5), "Device List Format").
func unmanagesWired(specs string) bool {
	covered := false
	for _, spec := range strings.FieldsFunc(specs, func(r rune) bool { return r == ',' || r == ';' || r == ' ' }) {
		spec, except := strings.CutPrefix(spec, "except:")
		name, ok := strings.CutPrefix(spec, "interface-name:")
		if spec == "*" || spec == "type:ethernet" || ok && matchesWired([]string{strings.TrimPrefix(name, "=")}) {
			if except {
				return false
			}
			covered = true
		}
	}
	return covered
}

func checkNetworkd(c *checker) error {
	by, err := c.enabled("systemd-networkd.service")
	if by == "" || err != nil {
		return err
	}
	dirs := []string{"/etc/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network"}
	files, err := c.dropIns(".network", dirs...)
	if err != nil {
		return err
	}
	for _, p := range files {
		if info, err := c.stat(p); err != nil {
			return err
		} else if info == nil || !info.Mode().IsRegular() || info.Size() == 0 {
			continue // that is how a file of another directory is masked, with what is added to it
		}
		sections, err := c.networkFile(p, dirs)
		if err != nil {
			return err
		}
		if !isForWired(sections) {
			continue
		}
		if !keepsConfiguration(sections) {
			c.found(Warning, p, "systemd-networkd is in charge of the interface that the root comes over, and drops its address when it is restarted or the lease ends",
				"KeepConfiguration=dhcp in its section [Network], or Unmanaged=yes in [Link]")
		}
		return nil // only the first that matches counts
	}
	return nil
}

// networkFile reads a .network file and its drop-ins.
func (c *checker) networkFile(p string, dirs []string) ([]section, error) {
	var dropIns []string
	for _, dir := range dirs {
		dropIns = append(dropIns, path.Join(dir, path.Base(p)+".d"))
	}
	files, err := c.dropIns(".conf", dropIns...)
	if err != nil {
		return nil, err
	}
	var all []section
	err = each(append([]string{p}, files...), func(p string) error {
		sections, err := c.settings(p)
		for _, s := range sections {
			if s.name == "Match" || s.name == "Network" || s.name == "Link" {
				all = append(all, s)
			}
		}
		return err
	})
	return all, err
}

// isForWired reports whether a .network file may be for a wired interface of
// real or virtual hardware (systemd.network(5)). One that says nothing in [Match]
// is for none: networkd ignores it, and says so in its log.
func isForWired(sections []section) bool {
	found := false
	for _, s := range sections {
		if s.name != "Match" {
			continue
		}
		found = found || len(s.values) > 0
		for _, other := range []string{"Kind", "WLANInterfaceType", "SSID", "BSSID", "Virtualization"} {
			if v := s.values[other]; v != "" && v != "no" && !strings.HasPrefix(v, "!") {
				return false
			}
		}
		if kind := s.values["Type"]; kind != "" && strings.HasPrefix(kind, "!") == slices.Contains(strings.Fields(strings.TrimPrefix(kind, "!")), "ether") {
			return false
		}
		if name := s.values["Name"]; name != "" && !matchesWired(strings.Fields(name)) {
			return false
		}
	}
	return found
}

func keepsConfiguration(sections []section) bool {
	for _, s := range sections {
		keep := s.values["KeepConfiguration"]
		switch {
		case s.name == "Network" && slices.Contains([]string{"yes", "true", "1", "dhcp", "dynamic"}, keep),
			s.name == "Link" && slices.Contains([]string{"yes", "true", "1"}, s.values["Unmanaged"]):
			return true
		}
	}
	return false
}

func checkNetplan(c *checker) error {
	installed, err := c.exists("/usr/sbin/netplan", "/usr/lib/systemd/system-generators/netplan", "/lib/systemd/system-generators/netplan")
	if installed == "" || err != nil {
		return err
	}
	files, err := c.dropIns(".yaml", "/etc/netplan", "/usr/lib/netplan", "/lib/netplan")
	if err != nil {
		return err
	}
	renderer := "" // of all files, as the last that names one has it
	var inCharge []string
	err = each(files, func(p string) error {
		text, err := c.read(p)
		plan := parseNetplan(text)
		if plan.renderer != "" {
			renderer = plan.renderer
		}
		if plan.wired && !plan.leftAlone {
			inCharge = append(inCharge, p)
		}
		return err
	})
	if renderer == "NetworkManager" { // which is a case of its own
		return err
	}
	for _, p := range inCharge {
		c.found(Warning, p, "netplan puts systemd-networkd in charge of the interface that the root comes over", "add \"critical: true\" to the interface")
	}
	return err
}

// netplan is what matters here of a file of netplan's.
type netplan struct {
	renderer  string // of all interfaces
	wired     bool   // it is about wired interfaces
	leftAlone bool   // one of them is critical, or NetworkManager's
}

// parseNetplan reads a file of netplan's (netplan(5)), as it is mostly written: a
// key to a line.
func parseNetplan(text string) netplan {
	var plan netplan
	top := -1 // how far what is below "network:" is indented
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " #")
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if top < 0 && key != "network" {
			top = indent
		}
		switch value = strings.Trim(value, ` "'`+"\r\n"); key {
		case "ethernets":
			plan.wired = true
		case "renderer":
			if indent == top {
				plan.renderer = value
			} else if value == "NetworkManager" {
				plan.leftAlone = true
			}
		case "critical":
			if slices.Contains([]string{"true", "yes", "on", "y"}, strings.ToLower(value)) {
				plan.leftAlone = true
			}
		}
	}
	return plan
}

func checkDhcpcd(c *checker) error {
	_, by, err := c.firstEnabled("dhcpcd.service", "dhcpcd5.service")
	if by == "" || err != nil {
		return err
	}
	lines, err := c.lines("/etc/dhcpcd.conf")
	for _, line := range lines {
		words := strings.Fields(strings.ReplaceAll(line, ",", " "))
		if len(words) == 0 { // only commas
			continue
		}
		switch words[0] {
		case "interface", "profile", "ssid", "arping": // what follows is about that only
			words = nil
		case "nolink":
			return err
		case "denyinterfaces":
			if matchesWired(words[1:]) {
				return err
			}
		case "allowinterfaces":
			if !matchesWired(words[1:]) {
				return err
			}
		}
		if words == nil {
			break
		}
	}
	c.found(Warning, by, "dhcpcd is in charge of the interface that the root comes over, and may take its address away",
		"echo 'denyinterfaces eth0 en*' >> etc/dhcpcd.conf, in front of any line \"interface\"")
	return err
}

func checkIfupdown(c *checker) error {
	by, err := c.enabled("networking.service")
	if by == "" || err != nil {
		return err
	}
	files, err := c.dropIns("", "/etc/network/interfaces.d")
	if err != nil {
		return err
	}
	started := map[string]bool{}
	type stanza struct{ file, name string }
	var configured []stanza
	err = each(append([]string{"/etc/network/interfaces"}, files...), func(p string) error {
		lines, err := c.lines(p)
		for _, line := range lines {
			words := strings.Fields(line)
			switch {
			case words[0] == "auto" || strings.HasPrefix(words[0], "allow-"):
				for _, name := range words[1:] {
					started[name] = true
				}
			case words[0] == "iface" && len(words) >= 4 && matchesWired(words[1:2]) && (words[3] == "dhcp" || words[3] == "static"):
				configured = append(configured, stanza{p, words[1]})
			}
		}
		return err
	})
	for _, s := range configured {
		if started[s.name] {
			c.found(Warning, s.file, "ifupdown configures "+printable(s.name)+" again, which the root comes over, and takes it down when the node stops",
				"iface "+printable(s.name)+" inet manual, or remove the stanza")
		}
	}
	return err
}
