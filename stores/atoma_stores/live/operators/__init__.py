"""What keeps one result up to date: pure, without Trio and without SQLite; changes of rows in, changes of the result out."""
