"""Jobs that learn how examples are mixed, or where a student looks, and teach students so."""
