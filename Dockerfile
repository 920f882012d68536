# The official image of PostgreSQL with pgmc in it, for trying it:
#
#	docker build -t pgmc .
#	docker run -d --name pgmc -e POSTGRES_PASSWORD=secret pgmc
#	docker exec -it pgmc psql -U postgres
#
# The extension is in the database that the image makes at its first start (POSTGRES_DB).
# tools/test-docker takes the steps below on a bare Debian system, without an engine.
ARG PG_MAJOR=15
FROM postgres:${PG_MAJOR}-bookworm

COPY . /usr/src/pgmc

RUN set -eux; \
	savedAptMark="$(apt-mark showmanual)"; \
	apt-get update; \
	apt-get install -y --no-install-recommends \
		gcc \
		libc6-dev \
		libpq-dev \
		make \
		"postgresql-server-dev-$PG_MAJOR" \
	; \
	pgConfig="/usr/lib/postgresql/$PG_MAJOR/bin/pg_config"; \
	make -C /usr/src/pgmc -j "$(nproc)" PG_CONFIG="$pgConfig"; \
	make -C /usr/src/pgmc install PG_CONFIG="$pgConfig"; \
	rm -rf /usr/src/pgmc; \
# what was installed for the build goes again
	apt-mark auto '.*' > /dev/null; \
	apt-mark manual $savedAptMark > /dev/null; \
	apt-get purge -y --auto-remove \
		-o APT::AutoRemove::RecommendsImportant=false \
		-o APT::AutoRemove::SuggestsImportant=false \
	; \
	rm -rf /var/lib/apt/lists/*

RUN echo 'CREATE EXTENSION pgmc;' > /docker-entrypoint-initdb.d/10-pgmc.sql
