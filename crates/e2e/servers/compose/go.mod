module isochrone.invalid/servers/compose

go 1.26

require github.com/docker/compose/v2 v2.40.3
