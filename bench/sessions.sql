SELECT pgmc.autonomous('INSERT INTO journal (who, what) VALUES (''bench'', ''a line of the log'')');
