"""The contracts a relay serves: enrolling, staying enrolled, and who may be served."""
