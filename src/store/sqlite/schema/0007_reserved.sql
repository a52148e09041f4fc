-- 0007 reserved: nothing; the number belongs to a change that is made beside this one.
SELECT 1;
