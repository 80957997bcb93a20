-- The database, and the two roles that the Secrets name: by the server's administrator, once, before the first migration.
--     PAYMENTS_OWNER_PASSWORD=... PAYMENTS_PASSWORD=... psql -f roles.sql
-- A database's owner may make tables in it, and from PostgreSQL 15 on nobody else may. What the service may do with a
-- table is granted where the table is made: in the migrations.
\set ON_ERROR_STOP on
\getenv owner_password PAYMENTS_OWNER_PASSWORD
\getenv password PAYMENTS_PASSWORD
CREATE ROLE payments_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE payments LOGIN PASSWORD :'password';
CREATE DATABASE payments OWNER payments_owner;
