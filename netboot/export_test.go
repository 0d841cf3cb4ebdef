package netboot

import "github.com/rootnfsd/rootnfsd/exports"

var CompareVersions = compareVersions

// ParseName is parseName with its results apart.
func ParseName(name string) (id exports.BootID, who string, names []string, err error) {
	w, err := parseName(name)
	return w.id, w.who, w.names, err
}

// StepOf is stepOf.
func StepOf(name string) exports.BootStep { return stepOf(name) }

// ParseCmdline is parseCmdline.
func ParseCmdline(content string) ([]string, error) { return parseCmdline(content) }

// NamesCommandLine is namesCommandLine.
var NamesCommandLine = namesCommandLine
