package main

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// databaseEntry is one of several databases that a daemon serves.
type databaseEntry struct {
	databaseConfig `yaml:",inline"`

	// Name is for logs and for --database. Default: the database's name in the URL.
	Name string `yaml:"name" default:"the database in the URL" doc:"name in logs and for --database"`
	// Pipelines are this database's own. Default: those at the top of the file.
	Pipelines []pipelineConfig `yaml:"pipelines" default:"those at the top" doc:"this database's own"`
}

func (v *validator) checkDatabases(c *config) {
	if len(c.Databases) == 0 {
		v.checkDatabase("database", &c.Database)
		v.checkPipelines("pipelines", c.Pipelines)
		return
	}
	if c.Database != (databaseConfig{}) {
		v.fail("databases", "cannot stand beside database: put that one into the list")
	}
	if len(c.Pipelines) > 0 {
		v.checkPipelines("pipelines", c.Pipelines)
	}
	names, places := map[string]bool{}, map[[2]string]bool{}
	for i := range c.Databases {
		d, at := &c.Databases[i], fmt.Sprintf("databases[%d]", i)
		database := v.checkDatabase(at, &d.databaseConfig)
		if len(d.Pipelines) > 0 {
			v.checkPipelines(at+".pipelines", d.Pipelines)
		} else if d.Pipelines = c.Pipelines; len(d.Pipelines) == 0 {
			v.fail(at+".pipelines", "is empty, and there are none at the top of the file that it could have instead")
		}
		if d.Name == "" {
			d.Name = database
		}
		switch {
		case d.URL != "" && places[[2]string{d.URL, d.Schema}]:
			v.fail(at+".url", "is in the list twice with the same schema")
		case d.Name != "" && names[d.Name]:
			v.fail(at+".name", "%q is used twice: give each a name of its own, the URL's database is only the default", d.Name)
		}
		names[d.Name], places[[2]string{d.URL, d.Schema}] = true, true
	}
}

// copied may be checked while others use d: the check fills in what variables say,
// in the block too.
func (d databaseConfig) copied() databaseConfig {
	if d.TLS != nil {
		block := *d.TLS
		d.TLS = &block
	}
	return d
}

// checkDatabase returns the name of the database in the URL.
func (v *validator) checkDatabase(at string, d *databaseConfig) string {
	d.URL = v.required(at+".url", d.URL, "postgres://user:password@host:5432/database")
	d.Password = v.optional(at+".password", d.Password)
	if !schemaName.MatchString(d.Schema) {
		v.fail(at+".schema", "%q is not a schema name: use lower-case letters, digits and underscores, at most 40", d.Schema)
	}
	v.checkDatabaseTLS(at, d)
	if d.URL == "" {
		return ""
	}
	pc, err := pgxpool.ParseConfig(d.URL)
	if err != nil {
		v.fail(at+".url", "%s", urlProblem(err))
		return ""
	}
	return pc.ConnConfig.Database
}

// each returns a configuration for each database, with Database and Pipelines set
// as if it were the only one.
func (c config) each() []databaseEntry {
	if len(c.Databases) > 0 {
		return c.Databases
	}
	return []databaseEntry{{databaseConfig: c.Database, Pipelines: c.Pipelines}}
}

// one is the configuration of one database, for commands that work on one. The
// name may be left out where there is only one.
func (c config) one(name string) (config, error) {
	list := c.each()
	var names []string
	for _, d := range list {
		if d.Name == name && name != "" || name == "" && len(list) == 1 {
			c.Database, c.Pipelines, c.Databases = d.databaseConfig, d.Pipelines, nil
			return c, nil
		}
		names = append(names, d.Name)
	}
	if len(c.Databases) == 0 {
		return c, wrongUse("--database %s: the configuration has no list of databases, leave it out", name)
	}
	return c, wrongUse("--database %q is not one of %s", name, strings.Join(names, ", "))
}
